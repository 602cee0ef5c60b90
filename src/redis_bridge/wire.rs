//! Which adapter is spoken: the one place of the bridge that tells the two apart.
//!
//! A plain struct for each namespace, without connection. It says what to listen to, what is published where, and what a
//! message that came means; the bytes and names themselves are `adapter`'s.
//!
//! | | classic | sharded |
//! | --- | --- | --- |
//! | broadcasts | a pattern; each room has a channel | main channel; rooms' channels as the mode says |
//! | requests | a channel of their own | main channel |
//! | responses | a shared channel, and one of each instance | a channel of each instance |
//! | counted | subscribers of the requests' channel | subscribers of the main channel |
//! | asks for ids, for rooms | yes | no: it fetches the sockets, whose ids and rooms say the same |
//!
//! Source: wire.md 3.1, 3.3, 3.4, 4.1, 4.3.

use bytes::Bytes;

use super::{
    bus::{Inbound, Names, Outbound},
    calls::Calls,
};
use crate::{
    adapter::{
        DecodeError, EncodeError,
        channel::{Addressed, BroadcastChannels, Carries, RequestChannels},
        incoming::{Body, Incoming},
        kind::AdapterKind,
        message,
        request::{self, Request, RequestId},
        response::{self, Response},
        sharded,
        sharded_channel::{ShardedChannel, ShardedChannels, SubscriptionMode},
        uid::Uid,
    },
    hub::{
        broadcast::{Broadcast, Target},
        interest::Interest,
        question::Question,
        room_table::Listed,
    },
    socket_io::ids::{Namespace, Room},
};

/// Returns which rooms the adapter must be told of, if any.
pub(super) fn listed_rooms(adapter: AdapterKind) -> Option<Listed> {
    match adapter {
        AdapterKind::Classic | AdapterKind::Sharded(SubscriptionMode::Static) => None,
        AdapterKind::Sharded(SubscriptionMode::Dynamic) => Some(Listed::Public),
        AdapterKind::Sharded(SubscriptionMode::DynamicPrivate) => Some(Listed::All),
    }
}

/// What a message is, by the name under which it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A broadcast of the classic adapter, and whom it promises to reach.
    Broadcast(Addressed),
    /// A request or a response of the classic adapter.
    Call(Carries),
    /// Whatever the sharded adapter sends.
    Sharded(ShardedChannel),
}

impl Kind {
    /// Returns whether it came on a channel of responses, on which the bridge also asks itself whether it may publish.
    pub(super) fn is_of_responses(&self) -> bool {
        matches!(
            self,
            Self::Call(Carries::Responses) | Self::Sharded(ShardedChannel::OwnResponse)
        )
    }
}

/// Why a message is not for us.
#[derive(Debug)]
pub(super) enum Unfit {
    OwnEcho,
    /// For a namespace other than the one whose channel it came on.
    Foreign,
    /// For a room or a namespace without members here.
    NobodyHere,
    /// An answer that nobody waits for.
    Unasked,
    /// A question too many.
    Overload,
    Malformed(DecodeError),
}

impl From<DecodeError> for Unfit {
    fn from(err: DecodeError) -> Self {
        match err {
            DecodeError::Namespace => Self::Foreign,
            err => Self::Malformed(err),
        }
    }
}

/// One namespace on the wire, as one instance sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Channels {
    namespace: Namespace,
    uid: Uid,
    names: ChannelNames,
}

#[derive(Debug, PartialEq, Eq)]
enum ChannelNames {
    Classic {
        broadcasts: BroadcastChannels,
        requests: RequestChannels,
    },
    Sharded(ShardedChannels),
}

impl Channels {
    /// Returns those of `namespace` under `prefix` for the instance `uid`.
    pub(super) fn new(adapter: AdapterKind, prefix: &str, namespace: Namespace, uid: &Uid) -> Self {
        let name = namespace.clone();
        let names = match adapter {
            AdapterKind::Classic => ChannelNames::Classic {
                requests: RequestChannels::new(prefix, name.clone(), uid),
                broadcasts: BroadcastChannels::new(prefix, name),
            },
            AdapterKind::Sharded(mode) => {
                ChannelNames::Sharded(ShardedChannels::new(prefix, name, uid, mode))
            }
        };
        Self {
            namespace,
            uid: uid.clone(),
            names,
        }
    }

    /// Returns the namespace.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns what to listen to while the namespace is open.
    pub(super) fn listen_to(&self) -> Names {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        match &self.names {
            ChannelNames::Classic {
                broadcasts,
                requests,
            } => Names {
                patterns: owned(&[broadcasts.pattern()]),
                channels: owned(&requests.subscribe_to()),
            },
            ChannelNames::Sharded(channels) => Names {
                patterns: Vec::new(),
                channels: owned(&channels.subscribe_to()),
            },
        }
    }

    /// Returns the channel to listen to besides while `room`, which is of those that [`listed_rooms`] says, has members
    /// here.
    pub(super) fn of_room(&self, room: &Room) -> Option<String> {
        let ChannelNames::Sharded(channels) = &self.names else {
            return None;
        };
        // The room that an instance's name is: listened to anyway.
        channels
            .subscribe_to_room(room, false)
            .filter(|name| !channels.subscribe_to().contains(&name.as_str()))
    }

    /// Returns the channel whose subscribers are the instances that answer a request.
    pub(super) fn counted(&self) -> &str {
        match &self.names {
            ChannelNames::Classic { requests, .. } => requests.request(),
            ChannelNames::Sharded(channels) => channels.main(),
        }
    }

    /// Returns the channel to which this instance listens, and nobody else.
    pub(super) fn own(&self) -> &str {
        match &self.names {
            ChannelNames::Classic { requests, .. } => {
                let [.., own] = requests.subscribe_to();
                own
            }
            ChannelNames::Sharded(channels) => {
                let [_, own] = channels.subscribe_to();
                own
            }
        }
    }

    /// Returns an event for clients as it is published.
    pub(super) fn broadcast(&self, broadcast: &Broadcast) -> Result<Outbound, EncodeError> {
        let (channel, payload) = match &self.names {
            ChannelNames::Classic { broadcasts, .. } => (
                broadcasts.publish_to(&broadcast.target),
                message::encode(&self.uid, broadcast)?,
            ),
            ChannelNames::Sharded(channels) => (
                channels.publish_to(&broadcast.target),
                sharded::encode_broadcast(&self.uid, broadcast)?,
            ),
        };
        Ok(Outbound {
            channel: channel.into_owned(),
            payload,
        })
    }

    /// Returns a request as it is published.
    pub(super) fn request(&self, request: &Request) -> Result<Outbound, EncodeError> {
        let payload = match &self.names {
            ChannelNames::Classic { .. } => request::encode(&self.uid, &self.namespace, request)?,
            ChannelNames::Sharded(_) => {
                sharded::encode_request(&self.uid, &self.namespace, request)?
            }
        };
        Ok(Outbound {
            channel: self.counted().to_owned(),
            payload,
        })
    }

    /// Returns the request that asks a question.
    pub(super) fn ask(&self, id: RequestId, question: Question) -> Request {
        let is_sharded = matches!(self.names, ChannelNames::Sharded(_));
        match question {
            Question::SocketIds { target } if is_sharded => Request::Fetch { id, target },
            Question::Rooms if is_sharded => Request::Fetch {
                id,
                target: Target::default(),
            },
            Question::SocketIds { target } => Request::SocketIds {
                id,
                rooms: target.rooms,
            },
            Question::Rooms => Request::AllRooms { id },
            Question::Sockets { target } => Request::Fetch { id, target },
            Question::ServerEvent { args } => Request::ServerSideEmit { id: Some(id), args },
            Question::Broadcast {
                broadcast,
                timeout,
                expects_one,
            } => Request::Broadcast {
                id,
                broadcast,
                timeout: Some(timeout),
                expect_single_response: expects_one,
            },
        }
    }

    /// Returns a response to the instance `requester` as it is published; nothing if nobody could hear it. One to an
    /// instance of Sockhop says whose it is; all others are byte for byte as Node's.
    pub(super) fn response(
        &self,
        requester: Option<&str>,
        response: &Response,
    ) -> Result<Option<Outbound>, EncodeError> {
        let (channel, payload) = match &self.names {
            ChannelNames::Classic { requests, .. } => (
                requests.respond_on(requester, response).into_owned(),
                response::encode(response, response.id().is_of_ours().then_some(&self.uid))?,
            ),
            ChannelNames::Sharded(channels) => {
                let Some(channel) = requester.and_then(|uid| channels.respond_on(uid)) else {
                    return Ok(None);
                };
                let payload = sharded::encode_response(&self.uid, &self.namespace, response)?;
                (channel, payload)
            }
        };
        Ok(Some(Outbound { channel, payload }))
    }

    /// Returns what a message is by the name under which it came; `None` if the name is none of this namespace's.
    pub(super) fn kind_of(&self, inbound: &Inbound) -> Option<Kind> {
        let channel = &inbound.channel;
        match &self.names {
            ChannelNames::Classic { broadcasts, .. } if inbound.pattern.is_some() => {
                broadcasts.addressed(channel).map(Kind::Broadcast)
            }
            ChannelNames::Classic { requests, .. } => requests.carries(channel).map(Kind::Call),
            ChannelNames::Sharded(channels) => channels.judge(channel).map(Kind::Sharded),
        }
    }

    /// Returns what a message says. Of one that can reach nobody here no more is read than who sent it, where its channel
    /// tells; nor is more read of an answer for which nobody waits.
    pub(super) fn read(
        &self,
        kind: &Kind,
        payload: &Bytes,
        interest: &Interest,
        calls: &Calls,
    ) -> Result<Incoming, Unfit> {
        match kind {
            Kind::Broadcast(addressed) => self.read_classic(addressed, payload, interest),
            Kind::Call(carries) => {
                let is_asked = |id: &RequestId| calls.is_asked(&self.namespace, id);
                Incoming::decode_classic(&self.namespace, *carries, payload, is_asked)?
                    .ok_or(Unfit::Unasked)
            }
            Kind::Sharded(channel) => self.read_sharded(channel, payload, interest, calls),
        }
    }

    fn read_classic(
        &self,
        addressed: &Addressed,
        payload: &Bytes,
        interest: &Interest,
    ) -> Result<Incoming, Unfit> {
        let envelope = message::Envelope::open(payload)?;
        if envelope.is_from(&self.uid) {
            return Err(Unfit::OwnEcho);
        }
        // A name is copied only for whoever looks at it.
        let uid = interest.is_anybody_registering().then(|| envelope.uid());
        let room = match addressed {
            Addressed::Namespace => None,
            Addressed::Room(room) => Some(room),
        };
        if !interest.is_there(&self.namespace, room) {
            return Err(Unfit::NobodyHere);
        }
        let broadcast = envelope.decode()?;
        if broadcast.namespace != self.namespace {
            return Err(Unfit::Foreign);
        }
        Ok(Incoming {
            uid,
            body: Body::Broadcast(broadcast),
        })
    }

    fn read_sharded(
        &self,
        channel: &ShardedChannel,
        payload: &Bytes,
        interest: &Interest,
        calls: &Calls,
    ) -> Result<Incoming, Unfit> {
        let envelope = sharded::Envelope::open(payload)?;
        if envelope.is_from(&self.uid) {
            return Err(Unfit::OwnEcho);
        }
        if let ShardedChannel::Room(room) = channel
            && !interest.is_there(&self.namespace, Some(room))
        {
            return Err(Unfit::NobodyHere);
        }
        let is_asked = |id: &RequestId| calls.is_asked(&self.namespace, id);
        let incoming = envelope.decode(&self.namespace, is_asked)?;
        let incoming = incoming.ok_or(Unfit::Unasked)?;
        // What the main channel carries shows only now what it is; the hub need not be woken for nobody.
        if let Body::Broadcast(broadcast) = &incoming.body {
            let is_there = |room| interest.is_there(&self.namespace, room);
            let rooms = &broadcast.target.rooms;
            let may_reach = match rooms.as_slice() {
                [] => is_there(None),
                rooms => rooms.iter().any(|room| is_there(Some(room))),
            };
            if !may_reach {
                return Err(Unfit::NobodyHere);
            }
        }
        Ok(incoming)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket_io::args::Args;

    const SHARDED: AdapterKind = AdapterKind::Sharded(SubscriptionMode::Dynamic);

    fn channels(adapter: AdapterKind, uid: &Uid) -> Channels {
        Channels::new(adapter, "p", "/a".into(), uid)
    }

    fn inbound(outbound: &Outbound) -> Inbound {
        Inbound {
            pattern: None,
            channel: Bytes::from(outbound.channel.clone()),
            payload: outbound.payload.clone(),
        }
    }

    fn to_room(name: &str) -> Broadcast {
        let args = Args::from_parts("[\"e\"]".into(), vec![]);
        let mut broadcast = Broadcast::to_all("/a".into(), args);
        broadcast.target.rooms = vec![name.into()];
        broadcast
    }

    #[test]
    fn only_dynamic_modes_want_to_know_of_rooms() {
        use SubscriptionMode::{Dynamic, DynamicPrivate, Static};
        for (adapter, listed) in [
            (AdapterKind::Classic, None),
            (AdapterKind::Sharded(Static), None),
            (AdapterKind::Sharded(Dynamic), Some(Listed::Public)),
            (AdapterKind::Sharded(DynamicPrivate), Some(Listed::All)),
        ] {
            assert_eq!(listed_rooms(adapter), listed, "{adapter:?}");
        }
    }

    #[test]
    fn a_room_that_is_called_like_this_instance_is_listened_to_once() {
        let uid = Uid::random_hex().unwrap();
        let channels = channels(SHARDED, &uid);
        assert_eq!(channels.of_room(&"red".into()).unwrap(), "p#/a#red#");
        assert_eq!(channels.of_room(&uid.as_str().into()), None);
        assert_eq!(channels.listen_to().channels[1], format!("p#/a#{uid}#"));
        assert!(channels.listen_to().patterns.is_empty());
    }

    #[test]
    fn what_comes_on_the_own_channel_is_of_responses() {
        for (adapter, uid, own) in [
            (
                SHARDED,
                Uid::parse_hex("0123456789abcdef"),
                "p#/a#0123456789abcdef#",
            ),
            (
                AdapterKind::Classic,
                Uid::parse("abcdef"),
                "p-response#/a#abcdef#",
            ),
        ] {
            let channels = channels(adapter, &uid.unwrap());
            assert_eq!(channels.own(), own);
            let is_of_responses = |channel: &str| {
                let nothing = Outbound {
                    channel: channel.to_owned(),
                    payload: Bytes::new(),
                };
                channels
                    .kind_of(&inbound(&nothing))
                    .unwrap()
                    .is_of_responses()
            };
            assert!(is_of_responses(own));
            assert!(!is_of_responses(channels.counted()));
        }
    }

    #[test]
    fn the_sharded_adapter_fetches_where_the_classic_one_asks_for_ids() {
        let id = RequestId::from("1");
        let sharded = channels(SHARDED, &Uid::random_hex().unwrap());
        let classic = channels(AdapterKind::Classic, &Uid::random().unwrap());
        let target = to_room("red").target;
        let ids = Question::SocketIds {
            target: target.clone(),
        };
        let fetch = Request::Fetch {
            id: id.clone(),
            target,
        };
        assert_eq!(sharded.ask(id.clone(), ids.clone()), fetch);
        let ask = Request::SocketIds {
            id: id.clone(),
            rooms: vec!["red".into()],
        };
        assert_eq!(classic.ask(id, ids), ask);
    }

    #[test]
    fn what_one_instance_publishes_another_reads_and_its_own_echo_nobody() {
        let (me, other) = (Uid::random_hex().unwrap(), Uid::random_hex().unwrap());
        let (mine, others) = (channels(SHARDED, &me), channels(SHARDED, &other));
        let calls = Calls::new(me.clone());
        let everything = Interest::in_everything();
        let published = others.broadcast(&to_room("red")).unwrap();
        assert_eq!(published.channel, "p#/a#red#");
        let kind = mine.kind_of(&inbound(&published)).unwrap();
        let read = mine
            .read(&kind, &published.payload, &everything, &calls)
            .unwrap();
        assert_eq!(read.body, Body::Broadcast(to_room("red")));
        assert!(matches!(
            others.read(&kind, &published.payload, &everything, &calls),
            Err(Unfit::OwnEcho)
        ));
        let blue = Interest::in_room("blue");
        assert!(matches!(
            mine.read(&kind, &published.payload, &blue, &calls),
            Err(Unfit::NobodyHere)
        ));
        // On the main channel, too, since all rooms share it there.
        let main = Kind::Sharded(ShardedChannel::Main);
        assert!(matches!(
            mine.read(&main, &published.payload, &blue, &calls),
            Err(Unfit::NobodyHere)
        ));
        let elsewhere = Channels::new(SHARDED, "p", "/b".into(), &me);
        assert!(matches!(
            elsewhere.read(&main, &published.payload, &everything, &calls),
            Err(Unfit::Foreign)
        ));
    }

    #[test]
    fn only_one_of_us_is_told_by_whom_it_is_answered() {
        let (me, other) = (Uid::random().unwrap(), Uid::random().unwrap());
        let channels = channels(AdapterKind::Classic, &me);
        for (id, expected) in [
            (RequestId::from("1"), None),
            (RequestId::of_ours(&other, 1), Some(me.as_str())),
        ] {
            let response = Response::ClientCount { id, num_clients: 2 };
            let sent = channels.response(Some(other.as_str()), &response);
            let read = response::decode(&sent.unwrap().unwrap().payload).unwrap();
            assert_eq!(read.uid.as_deref(), expected);
        }
    }

    #[test]
    fn a_response_goes_to_the_instance_that_asked_or_nowhere() {
        let me = Uid::random_hex().unwrap();
        let channels = channels(SHARDED, &me);
        let response = Response::ClientCount {
            id: RequestId::from("1"),
            num_clients: 2,
        };
        let to = |requester| channels.response(requester, &response).unwrap();
        let sent = to(Some("0123456789abcdef")).unwrap();
        assert_eq!(sent.channel, "p#/a#0123456789abcdef#");
        assert_eq!(to(Some("emitter")), None);
        assert_eq!(to(None), None);
    }
}
