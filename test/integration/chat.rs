//! `examples/chat.rs` in raw packets: rooms, acks, typing, private messages, and who is told of whom.

use sockhop::app::App;

use crate::support::{chat, server::TestServer, websocket::WebSocket};

fn start() -> TestServer {
    TestServer::of_app(
        |config| config,
        |config| App::new(config).gateway(chat::gateway()),
    )
}

/// A client of `/chat`.
struct Guest {
    websocket: WebSocket,
    id: String,
    name: &'static str,
}

impl Guest {
    async fn connect(server: &TestServer, name: &'static str) -> Self {
        let auth = format!(r#"{{"name":"{name}"}}"#);
        let (websocket, reply) = WebSocket::join(server.addr, "/chat", &auth).await;
        let id = reply
            .strip_prefix(r#"40/chat,{"sid":""#)
            .and_then(|tail| tail.strip_suffix(r#""}"#))
            .unwrap_or_else(|| panic!("not a CONNECT: {reply}"))
            .to_owned();
        Self {
            websocket,
            id,
            name,
        }
    }

    /// Connects and joins a room that is empty yet.
    async fn first_in(server: &TestServer, name: &'static str, room: &str) -> Self {
        let mut guest = Self::connect(server, name).await;
        guest.send(&format!(r#"0["join","{room}"]"#)).await;
        guest.gets(3, &format!("0[[{}]]", guest.person())).await;
        guest
    }

    fn person(&self) -> String {
        format!(r#"{{"id":"{}","name":"{}"}}"#, self.id, self.name)
    }

    /// Sends an event: an ack id and a JSON array.
    async fn send(&mut self, event: &str) {
        self.websocket.send(&format!("42/chat,{event}")).await;
    }

    /// Asserts what comes next: a packet type and the rest behind the namespace.
    async fn gets(&mut self, packet_type: u8, expected: &str) {
        assert_eq!(
            self.websocket.text().await,
            format!("4{packet_type}/chat,{expected}"),
            "for {}",
            self.name
        );
    }

    async fn gets_error(&mut self, ack: u32, code: &str) {
        let got = self.websocket.text().await;
        assert!(
            got.starts_with(&format!(
                r#"43/chat,{ack}[{{"error":{{"code":"{code}","message":""#
            )),
            "{code} was due, not {got}"
        );
    }
}

/// Two guests in the room `den`.
async fn two_in_a_room(server: &TestServer) -> (Guest, Guest) {
    let mut ann = Guest::first_in(server, "Ann", "den").await;
    let mut bob = Guest::connect(server, "Bob").await;
    bob.send(r#"0["join","den"]"#).await;
    bob.gets(3, &format!("0[[{},{}]]", ann.person(), bob.person()))
        .await;
    ann.gets(2, &format!(r#"["joined","den",{}]"#, bob.person()))
        .await;
    (ann, bob)
}

#[actix_rt::test]
async fn who_brings_no_fit_name_is_refused() {
    let server = start();
    let long = "x".repeat(21);
    for auth in [
        "",
        "{}",
        r#"{"name":7}"#,
        r#"{"name":""}"#,
        &format!(r#"{{"name":"{long}"}}"#),
    ] {
        let (_, reply) = WebSocket::join(server.addr, "/chat", auth).await;
        assert!(
            reply.starts_with(r#"44/chat,{"message":"Bad auth: "#)
                && reply.ends_with(r#","data":{"code":"bad_auth"}}"#),
            "{auth}: {reply}"
        );
    }
}

#[actix_rt::test]
async fn who_joins_learns_who_is_there_and_the_others_learn_of_them() {
    let server = start();
    let (mut ann, mut bob) = two_in_a_room(&server).await;
    // Joining once more changes nothing and is told to nobody.
    ann.send(r#"1["join","den"]"#).await;
    ann.gets(3, &format!("1[[{},{}]]", bob.person(), ann.person()))
        .await;
    ann.send(r#"2["say","den","first"]"#).await;
    bob.gets(2, &format!(r#"["said","den",{},"first"]"#, ann.person()))
        .await;
}

#[actix_rt::test]
async fn a_message_goes_to_the_others_in_its_room_alone() {
    let server = start();
    let (mut ann, mut bob) = two_in_a_room(&server).await;
    let mut eve = Guest::first_in(&server, "Eve", "attic").await;
    ann.send(r#"1["say","den","hello"]"#).await;
    ann.gets(3, "1[]").await;
    bob.gets(2, &format!(r#"["said","den",{},"hello"]"#, ann.person()))
        .await;
    // What comes first shows that nothing came before it.
    eve.send(r#"1["leave","attic"]"#).await;
    eve.gets(3, "1[]").await;
}

#[actix_rt::test]
async fn messages_that_make_no_sense_are_acked_with_an_error() {
    let server = start();
    let mut ann = Guest::first_in(&server, "Ann", "den").await;
    ann.send(r#"1["say","attic","hello"]"#).await;
    ann.gets_error(1, "not_in_room").await;
    ann.send(r#"2["say","den",""]"#).await;
    ann.gets_error(2, "bad_arguments").await;
    let long = "x".repeat(501);
    ann.send(&format!(r#"3["say","den","{long}"]"#)).await;
    ann.gets_error(3, "bad_arguments").await;
    ann.send(r#"4["say","den"]"#).await;
    ann.gets_error(4, "bad_arguments").await;
    ann.send(r#"5["join",{"room":"den"}]"#).await;
    ann.gets_error(5, "bad_arguments").await;
    ann.send(r#"6["leave","attic"]"#).await;
    ann.gets_error(6, "not_in_room").await;
}

#[actix_rt::test]
async fn typing_is_shown_to_the_others() {
    let server = start();
    let (mut ann, mut bob) = two_in_a_room(&server).await;
    ann.send(r#"["typing","den"]"#).await;
    bob.gets(2, &format!(r#"["typing","den",{}]"#, ann.person()))
        .await;
}

#[actix_rt::test]
async fn a_whisper_is_acked_once_the_other_has_answered() {
    let server = start();
    let (mut ann, mut bob) = two_in_a_room(&server).await;
    ann.send(&format!(r#"1["whisper","{}","psst"]"#, bob.id))
        .await;
    bob.gets(2, &format!(r#"0["whispered",{},"psst"]"#, ann.person()))
        .await;
    bob.websocket.send("43/chat,0[]").await;
    ann.gets(3, "1[]").await;
    ann.send(r#"2["whisper","nobody","psst"]"#).await;
    ann.gets_error(2, "not_here").await;
}

#[actix_rt::test]
async fn a_whisper_to_one_who_leaves_meanwhile_fails() {
    let server = start();
    let (mut ann, mut bob) = two_in_a_room(&server).await;
    ann.send(&format!(r#"1["whisper","{}","psst"]"#, bob.id))
        .await;
    bob.gets(2, &format!(r#"0["whispered",{},"psst"]"#, ann.person()))
        .await;
    bob.websocket.send("41/chat,").await;
    // That Bob left may be told before.
    let left = format!(r#"42/chat,["left","den",{}]"#, bob.person());
    let mut got = [ann.websocket.text().await, ann.websocket.text().await];
    got.sort();
    assert_eq!(got[0], left);
    assert!(
        got[1].starts_with(r#"43/chat,1[{"error":{"code":"ack_disconnected","#),
        "{got:?}"
    );
}

#[actix_rt::test]
async fn a_room_named_like_a_socket_id_is_a_room_like_any_other() {
    // Were it the socket's own, whoever sits in it would be left out wherever that socket is.
    let server = start();
    let (mut ann, mut bob) = two_in_a_room(&server).await;
    let mut eve = Guest::first_in(&server, "Eve", &bob.id).await;
    eve.send(r#"1["join","den"]"#).await;
    for guest in [&mut ann, &mut bob] {
        let joined = format!(r#"["joined","den",{}]"#, eve.person());
        guest.gets(2, &joined).await;
    }
    let all = [ann.person(), bob.person(), eve.person()].join(",");
    eve.gets(3, &format!("1[[{all}]]")).await;
    bob.send(r#"["say","den","hello"]"#).await;
    let said = format!(r#"["said","den",{},"hello"]"#, bob.person());
    ann.gets(2, &said).await;
    eve.gets(2, &said).await;
}

#[actix_rt::test]
async fn the_room_is_told_of_who_leaves_it_and_of_who_disconnects() {
    let server = start();
    let (mut ann, mut bob) = two_in_a_room(&server).await;
    bob.send(r#"1["leave","den"]"#).await;
    bob.gets(3, "1[]").await;
    let left = format!(r#"["left","den",{}]"#, bob.person());
    ann.gets(2, &left).await;
    bob.send(r#"2["join","den"]"#).await;
    ann.gets(2, &format!(r#"["joined","den",{}]"#, bob.person()))
        .await;
    drop(bob);
    ann.gets(2, &left).await;
    ann.send(r#"1["join","den"]"#).await;
    ann.gets(3, &format!("1[[{}]]", ann.person())).await;
}
