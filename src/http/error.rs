//! The one form of an HTTP error: `{"error":"<code>","message":"<what to do>"}`, and `"fields"` where fields are at fault.
//!
//! Says how an error looks, not which one it is: that is decided where it arises. Engine.IO has its own form (wire.md).

use std::{borrow::Cow, fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde::Serialize;

use crate::auth::FieldErrors;

/// An error on its way to an HTTP client.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: Body,
    allow: Option<&'static str>,
    retry_after: Option<Duration>,
}

#[derive(Debug, Serialize)]
struct Body {
    error: &'static str,
    message: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Box<FieldErrors>>,
}

impl ApiError {
    /// Returns an error. `code` is for programs and stays, `message` is a sentence for people that says what to do.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            body: Body {
                error: code,
                message: message.into(),
                fields: None,
            },
            allow: None,
            retry_after: None,
        }
    }

    /// Names what is wrong with each field.
    #[must_use]
    pub fn with_fields(mut self, fields: FieldErrors) -> Self {
        self.body.fields = Some(Box::new(fields));
        self
    }

    /// Names the methods that the route has, as `Allow` lists them.
    #[must_use]
    pub fn with_allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// Says when to come back, in whole seconds, rounded up.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.body.error)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(methods) = self.allow {
            response.insert_header((header::ALLOW, methods));
        }
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // Due with every 401 (RFC 9110, 11.6.1); browsers show no dialogue for this scheme.
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.json(&self.body)
    }
}
