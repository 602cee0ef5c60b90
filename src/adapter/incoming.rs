//! What came from another instance, whichever adapter brought it: the one form for those who act on it.
//!
//! Pure. `super::sharded` makes one of every message; of the classic adapter's, requests and responses are made into one
//! here, while its broadcasts have an envelope of their own, which tells own echoes before the rest is read.
//!
//! Source: wire.md 3.3, 4.3.

use bytes::Bytes;

use super::{
    DecodeError,
    channel::Carries,
    request::{self, Request, RequestId},
    response::{self, Response},
};
use crate::{hub::broadcast::Broadcast, socket_io::ids::Namespace};

/// A message and who sent it.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// The sender, if the message says so. Not checked to be a [`super::uid::Uid`].
    pub uid: Option<String>,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// An event for clients; nothing is answered.
    Broadcast(Broadcast),
    /// Something to do or to tell.
    Request(Request),
    /// The answer to a request, perhaps of another instance.
    Response(Response),
}

impl Incoming {
    /// Reads what came on one of the classic adapter's channels that carry requests or responses of `namespace`. Nothing, if it is a
    /// response of which `is_asked` says that nobody here waits for it: several servers share a channel, and no more of it is read.
    ///
    /// # Errors
    /// Anything that no sender in use writes; see [`DecodeError`].
    pub fn decode_classic(
        namespace: &Namespace,
        carries: Carries,
        bytes: &Bytes,
        is_asked: impl FnOnce(&RequestId) -> bool,
    ) -> Result<Option<Self>, DecodeError> {
        Ok(match carries {
            Carries::Requests => {
                let request::Received { uid, request } = request::decode(namespace, bytes)?;
                Some(Self {
                    uid,
                    body: Body::Request(request),
                })
            }
            Carries::Responses => {
                let envelope = response::Envelope::open(bytes)?;
                if !is_asked(envelope.id()) {
                    return Ok(None);
                }
                let response::Received { uid, response } = envelope.decode()?;
                Some(Self {
                    uid,
                    body: Body::Response(response),
                })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_says_whether_a_message_asks_or_answers() {
        let bytes = Bytes::from_static(br#"{"uid":"u","requestId":"r","type":1}"#);
        let main = Namespace::main();
        let read = |carries, bytes| Incoming::decode_classic(&main, carries, bytes, |_| true);
        let asked = read(Carries::Requests, &bytes).unwrap().unwrap();
        assert_eq!(asked.uid.as_deref(), Some("u"));
        let id = RequestId::from("r");
        assert_eq!(
            asked.body,
            Body::Request(Request::AllRooms { id: id.clone() })
        );
        let bytes = Bytes::from_static(br#"{"requestId":"r"}"#);
        let answered = read(Carries::Responses, &bytes).unwrap().unwrap();
        assert_eq!(answered.uid, None);
        assert_eq!(answered.body, Body::Response(Response::Done { id }));
        assert!(read(Carries::Requests, &bytes).is_err());
    }

    /// A bug: what others were answered on a shared channel was read whole, each time.
    #[test]
    fn an_answer_that_nobody_waits_for_is_not_read() {
        let main = Namespace::main();
        let read = |text: &'static [u8], is_asked| {
            let bytes = Bytes::from_static(text);
            Incoming::decode_classic(&main, Carries::Responses, &bytes, |id| {
                assert_eq!(id.as_str(), "r");
                is_asked
            })
        };
        // One that cannot be read shows whether it is.
        let faulty = br#"{"requestId":"r","sockets":7}"#;
        assert_eq!(read(faulty, false).unwrap(), None);
        assert!(read(faulty, true).is_err());
    }
}
