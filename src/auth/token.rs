//! Tokens: claims in, JWT out, and back.
//!
//! HS256 and nothing else, so that no header of a token chooses how it is verified. Knows one key at a time and
//! not where it comes from (`secret`). Pure but for the clock.
//!
//! The `jsonwebtoken` crate brings either C code or RSA (with an advisory) for algorithms that are refused here
//! anyway, so it gets a [`CryptoProvider`] of HMAC-SHA-256 alone.
//!
//! Source: RFC 7519 (claims), RFC 7515 (`crit`), RFC 8725 (best practices).
//! Limits: [`MAX_TOKEN_BYTES`]; beyond it `TokenError::Invalid` before any work.

use std::{
    sync::Once,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{self, ErrorKind},
    signature::{self, Signer, Verifier},
};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::error::TokenError;
use crate::config::Secret;

/// Longest token that is looked at. Ours have about 250 bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// The `iss` of every token.
pub const ISSUER: &str = "sockhop";

/// Who a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Stable id of the user.
    pub user_id: String,
    /// The name as it was registered.
    pub username: String,
    /// From this second on (Unix time) the token admits nobody.
    pub expires_at: u64,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    username: String,
    #[serde(default)]
    iat: u64,
    exp: u64,
    iss: String,
}

/// An HS256 key, ready to sign and verify.
pub(super) struct TokenKey {
    secret: Secret,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl TokenKey {
    /// Prepares `secret`. The caller sees to it that it is long enough.
    pub(super) fn new(secret: Secret) -> Self {
        install_provider();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        validation.set_issuer(&[ISSUER]);
        Self {
            encoding: EncodingKey::from_secret(secret.expose().as_bytes()),
            decoding: DecodingKey::from_secret(secret.expose().as_bytes()),
            secret,
            validation,
        }
    }

    /// Returns what the key was made of.
    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Returns a token that admits `user_id` for `lifetime`, in whole seconds.
    ///
    /// # Errors
    /// Signing failed, which HMAC does not.
    pub(super) fn sign(
        &self,
        user_id: &str,
        username: &str,
        lifetime: Duration,
    ) -> errors::Result<Secret> {
        let iat = unix_now();
        let claims = Claims {
            sub: user_id.to_owned(),
            username: username.to_owned(),
            iat,
            exp: iat.saturating_add(lifetime.as_secs()),
            iss: ISSUER.to_owned(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map(Secret::new)
    }

    /// Returns whom `token` speaks for.
    ///
    /// # Errors
    /// `Expired` for our own token past its time, `Invalid` for all else; the reason goes to the log, the token does not.
    pub(super) fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        self.verify_at(token, unix_now())
    }

    fn verify_at(&self, token: &str, now: u64) -> Result<Identity, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refuse("longer than any token", TokenError::Invalid));
        }
        let data = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|err| {
                let public = match err.kind() {
                    ErrorKind::ExpiredSignature => TokenError::Expired,
                    _ => TokenError::Invalid,
                };
                refuse(reason(err.kind()), public)
            })?;
        // "crit" lists extensions that must be understood (RFC 7515, 4.1.11); we understand none.
        if data.header.crit.is_some() {
            return Err(refuse("critical extension", TokenError::Invalid));
        }
        // The crate still admits in the very second of `exp`; RFC 7519, 4.1.4 does not.
        if data.claims.exp <= now {
            return Err(refuse("expired", TokenError::Expired));
        }
        Ok(Identity {
            user_id: data.claims.sub,
            username: data.claims.username,
            expires_at: data.claims.exp,
        })
    }
}

fn refuse(reason: &str, public: TokenError) -> TokenError {
    log::debug!("token refused: {reason}");
    public
}

/// Names an error by its kind alone: the crate's own texts quote the token's content.
fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidToken => "not three parts",
        ErrorKind::InvalidSignature => "signature does not match",
        ErrorKind::MissingRequiredClaim(_) => "claim is missing",
        ErrorKind::InvalidClaimFormat(_) => "claim has the wrong type",
        ErrorKind::ExpiredSignature => "expired",
        ErrorKind::ImmatureSignature => "not valid yet",
        ErrorKind::InvalidIssuer => "wrong issuer",
        ErrorKind::InvalidAudience => "meant for an audience",
        ErrorKind::InvalidAlgorithm => "algorithm is not HS256",
        ErrorKind::Base64(_) => "not base64url",
        ErrorKind::Json(_) => "header or claims cannot be read",
        _ => "cannot be verified",
    }
}

/// Returns the seconds since 1970, or 0 on a clock before it (which makes every token last until it is set).
fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// HMAC-SHA-256 with a key in it.
struct Hs256(Hmac<Sha256>);

impl Hs256 {
    fn new(family: AlgorithmFamily, key: &[u8]) -> errors::Result<Self> {
        if family != AlgorithmFamily::Hmac {
            return Err(ErrorKind::InvalidKeyFormat.into());
        }
        match Hmac::new_from_slice(key) {
            Ok(mac) => Ok(Self(mac)),
            Err(hmac::digest::InvalidLength) => Err(ErrorKind::InvalidKeyFormat.into()),
        }
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self
            .0
            .clone()
            .chain_update(message)
            .finalize()
            .into_bytes()
            .to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    /// Compares in constant time.
    fn verify(&self, message: &[u8], tag: &Vec<u8>) -> Result<(), signature::Error> {
        let mac = self.0.clone().chain_update(message);
        mac.verify_slice(tag).map_err(signature::Error::from_source)
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| match algorithm {
        Algorithm::HS256 => Ok(Box::new(Hs256::new(key.family(), key.as_bytes())?)),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    verifier_factory: |algorithm, key| match algorithm {
        Algorithm::HS256 => Ok(Box::new(Hs256::new(key.family(), key.try_get_as_bytes()?)?)),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    // For JWKs only, which nothing here reads.
    key_utils: KeyUtils::new_unimplemented(),
};

fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Refused when the program that embeds us has chosen one for its own tokens; every provider has HS256.
        if PROVIDER.install_default().is_err() {
            log::debug!("another JWT crypto provider is in place; it signs our tokens, too");
        }
    });
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const HOUR: Duration = Duration::from_secs(3600);

    fn key() -> TokenKey {
        TokenKey::new(Secret::new(SECRET))
    }

    fn part(value: &Value) -> String {
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    /// Signs by hand, so that nothing under test helps to make the forgeries.
    fn token(header: &Value, claims: &Value, secret: &str) -> String {
        let message = format!("{}.{}", part(header), part(claims));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(message.as_bytes());
        format!(
            "{message}.{}",
            URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
        )
    }

    fn hs256() -> Value {
        json!({"alg": "HS256", "typ": "JWT"})
    }

    fn claims() -> Value {
        json!({
            "sub": "u1",
            "username": "Alice",
            "iat": unix_now(),
            "exp": unix_now() + 3600,
            "iss": ISSUER,
        })
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[name] = value;
        claims
    }

    fn without(name: &str) -> Value {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        claims
    }

    #[test]
    fn a_token_speaks_for_whom_it_was_signed() {
        let key = key();
        let before = unix_now();
        let identity = key
            .verify(key.sign("u1", "Alice", HOUR).unwrap().expose())
            .unwrap();
        assert_eq!(
            (identity.user_id.as_str(), identity.username.as_str()),
            ("u1", "Alice")
        );
        assert!((before + 3600..=unix_now() + 3600).contains(&identity.expires_at));
        assert!(
            key.verify(&token(&hs256(), &claims(), SECRET)).is_ok(),
            "made by hand"
        );
    }

    #[test]
    fn the_tag_is_that_of_rfc_4231() {
        let hs256 = Hs256::new(AlgorithmFamily::Hmac, b"Jefe").unwrap();
        let tag = hs256.try_sign(b"what do ya want for nothing?").unwrap();
        assert_eq!(tag[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        assert_eq!(tag[28..], [0x64, 0xec, 0x38, 0x43]);
        assert!(hs256.verify(b"what do ya want for nothing?", &tag).is_ok());
        assert!(
            hs256
                .verify(b"what do ya want for nothing?", &tag[..31].to_vec())
                .is_err()
        );
    }

    #[test]
    fn a_foreign_key_or_a_changed_byte_is_invalid() {
        let key = key();
        let good = token(&hs256(), &claims(), SECRET);
        let foreign = token(&hs256(), &claims(), "another secret of thirty-two byte");
        assert_eq!(key.verify(&foreign), Err(TokenError::Invalid));
        let (message, tag) = good.rsplit_once('.').unwrap();
        let flipped = if tag.starts_with('A') { "B" } else { "A" };
        for forged in [
            format!("{message}.{flipped}{}", &tag[1..]),
            format!("{message}."),
            message.to_owned(),
            format!(
                "{}.{}.{tag}",
                part(&hs256()),
                part(&with("sub", json!("admin")))
            ),
        ] {
            assert_eq!(key.verify(&forged), Err(TokenError::Invalid), "{forged}");
        }
        for len in 0..good.len() {
            assert_eq!(
                key.verify(&good[..len]),
                Err(TokenError::Invalid),
                "truncated at {len}"
            );
        }
    }

    #[test]
    fn the_header_does_not_choose_the_algorithm() {
        let key = key();
        for alg in [
            "none", "None", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA", "", "hs256",
        ] {
            let header = json!({"alg": alg, "typ": "JWT"});
            // Once with our HS256 tag, as in the RS256/HS256 mix-up, and once without any.
            let signed = token(&header, &claims(), SECRET);
            let unsigned = format!("{}.", signed.rsplit_once('.').unwrap().0);
            assert_eq!(key.verify(&signed), Err(TokenError::Invalid), "{alg}");
            assert_eq!(
                key.verify(&unsigned),
                Err(TokenError::Invalid),
                "{alg} unsigned"
            );
        }
        assert_eq!(
            key.verify(&token(&json!({}), &claims(), SECRET)),
            Err(TokenError::Invalid)
        );
    }

    #[test]
    fn no_key_comes_from_the_token() {
        let key = key();
        for (name, value) in [
            (
                "jwk",
                json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode("attacker")}),
            ),
            ("jku", json!("https://evil.example/keys")),
            ("kid", json!("../../dev/null")),
            ("x5u", json!("https://evil.example/cert")),
        ] {
            let mut header = hs256();
            header[name] = value;
            let forged = token(&header, &claims(), "attacker");
            assert_eq!(key.verify(&forged), Err(TokenError::Invalid), "{name}");
        }
    }

    #[test]
    fn a_critical_extension_is_invalid() {
        let header = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
        assert_eq!(
            key().verify(&token(&header, &claims(), SECRET)),
            Err(TokenError::Invalid)
        );
    }

    #[test]
    fn a_token_ends_in_the_second_of_its_exp() {
        let key = key();
        let exp = unix_now() + 1000;
        let token = token(&hs256(), &with("exp", json!(exp)), SECRET);
        assert!(key.verify_at(&token, exp - 1).is_ok());
        assert_eq!(key.verify_at(&token, exp), Err(TokenError::Expired));
        assert_eq!(key.verify_at(&token, exp + 1), Err(TokenError::Expired));
    }

    #[test]
    fn an_expired_token_is_expired_only_if_it_is_ours() {
        let key = key();
        for exp in [0, 1, unix_now() - 1] {
            let expired = with("exp", json!(exp));
            assert_eq!(
                key.verify(&token(&hs256(), &expired, SECRET)),
                Err(TokenError::Expired)
            );
            let forged = token(&hs256(), &expired, "attacker");
            assert_eq!(key.verify(&forged), Err(TokenError::Invalid));
        }
    }

    #[test]
    fn claims_that_are_missing_or_of_the_wrong_type_are_invalid() {
        let key = key();
        for name in ["exp", "iss", "sub", "username"] {
            let token = token(&hs256(), &without(name), SECRET);
            assert_eq!(
                key.verify(&token),
                Err(TokenError::Invalid),
                "{name} missing"
            );
        }
        for (name, value) in [
            ("exp", json!("9999999999")),
            ("exp", json!(-1)),
            ("exp", json!(null)),
            ("exp", json!([9_999_999_999_u64])),
            ("exp", json!(1e300)),
            ("nbf", json!(unix_now() + 600)),
            ("nbf", json!("soon")),
            ("iss", json!("someone")),
            ("iss", json!([ISSUER])),
            ("aud", json!("another service")),
            ("sub", json!(1)),
            ("username", json!({})),
        ] {
            let token = token(&hs256(), &with(name, value.clone()), SECRET);
            assert_eq!(
                key.verify(&token),
                Err(TokenError::Invalid),
                "{name} = {value}"
            );
        }
        let past = token(&hs256(), &with("nbf", json!(unix_now() - 600)), SECRET);
        assert!(key.verify(&past).is_ok());
    }

    #[test]
    fn garbage_is_invalid() {
        let key = key();
        let deep = URL_SAFE_NO_PAD.encode("[".repeat(2000));
        for garbage in [
            "",
            ".",
            "..",
            "...",
            "a.b.c",
            "null",
            "Bearer x.y.z",
            "\0.\0.\0",
            "é.é.é",
            "=.=.=",
        ] {
            assert_eq!(key.verify(garbage), Err(TokenError::Invalid), "{garbage:?}");
        }
        assert_eq!(
            key.verify(&format!("{deep}.{deep}.{deep}")),
            Err(TokenError::Invalid)
        );
    }

    #[test]
    fn a_token_over_the_limit_is_invalid_even_if_genuine() {
        let key = key();
        let big = token(
            &hs256(),
            &with("username", json!("x".repeat(100_000))),
            SECRET,
        );
        assert_eq!(key.verify(&big), Err(TokenError::Invalid));
        let fits = token(
            &hs256(),
            &with("username", json!("x".repeat(2_000))),
            SECRET,
        );
        assert!(fits.len() <= MAX_TOKEN_BYTES && key.verify(&fits).is_ok());
    }
}
