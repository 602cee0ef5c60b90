//! A chat: rooms, acks, typing, private messages, and who is where.
//!
//! ```text
//! cargo run --example chat      # the page: http://localhost:3000
//! ```
//! Clients connect to `/chat` with `{"name": …}`. A person is `{"id": …, "name": …}`, the id being the socket's.
//!
//! | event | from | arguments | ack |
//! | --- | --- | --- | --- |
//! | `join` | client | room | the people in the room |
//! | `leave` | client | room | nothing |
//! | `say` | client | room, text | nothing, once everyone here was sent it |
//! | `typing` | client | room | nothing |
//! | `whisper` | client | id, text | nothing, once the other's client has answered |
//! | `joined`, `left`, `typing` | server | room, person | |
//! | `said` | server | room, person, text | |
//! | `whispered` | server | person, text | whatever the client likes |
//!
//! Whoever brings no fit name is refused (`bad_auth`). What cannot be done is acked as `{"error": {"code": …, "message": …}}`. Who is where is
//! kept in the memory of the instance, so it wants to be the only one: of several, each would know its own part, and a client whose session
//! moves to another would be in none of its rooms there.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sockhop::{
    app::App,
    config::Config,
    gateways::{Ack, AllArgs, Arg, Gateway, HandlerError, SocketRef},
    socket::disconnect::DisconnectReason,
    socket_io::ids::SocketId,
    telemetry,
};

/// How long a client may take to answer a private message.
const WHISPER_TIMEOUT: Duration = Duration::from_secs(5);

/// Text of 1 to `MAX` characters. It is checked as it is read, so that no handler ever sees other text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
struct Text<const MAX: usize>(String);

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.chars().count() {
            len if (1..=MAX).contains(&len) => Ok(Self(text)),
            len => Err(format!("text of 1 to {MAX} characters expected, not {len}")),
        }
    }
}

type RoomName = Text<40>;
type Line = Text<500>;

impl RoomName {
    /// The room's name at the server. With a prefix, because each socket is in a room named by its own id, and clients must
    /// not be able to join that one.
    fn room(&self) -> String {
        format!("room:{}", self.0)
    }
}

/// What is remembered of a socket: at first what the client brought.
#[derive(Serialize, Deserialize)]
struct Profile {
    name: Text<20>,
}

/// How others see a client.
#[derive(Clone, Serialize)]
struct Person {
    id: String,
    name: Text<20>,
}

impl Person {
    fn of(socket: &SocketRef) -> Result<Self, HandlerError> {
        let Profile { name } = socket.data_as()?;
        let id = socket.id().to_string();
        Ok(Self { id, name })
    }
}

/// A client, and the rooms that it is in: who leaves costs nothing for rooms of others.
struct Client {
    socket: SocketRef,
    rooms: HashSet<RoomName>,
}

/// Who is here, and where.
#[derive(Default)]
struct State {
    clients: HashMap<SocketId, Client>,
    rooms: HashMap<RoomName, Vec<Person>>,
}

impl State {
    /// Puts someone into a room, behind all others. Returns who is there now.
    fn join(&mut self, name: &RoomName, id: &SocketId, person: Person) -> &[Person] {
        if let Some(client) = self.clients.get_mut(id) {
            client.rooms.insert(name.clone());
        }
        let people = self.rooms.entry(name.clone()).or_default();
        people.push(person);
        people
    }

    /// Takes someone out of a room. Returns whether they were in it.
    fn leave(&mut self, name: &RoomName, id: &SocketId) -> bool {
        if let Some(client) = self.clients.get_mut(id) {
            client.rooms.remove(name);
        }
        let Some(people) = self.rooms.get_mut(name) else {
            return false;
        };
        let num_before = people.len();
        people.retain(|person| person.id != id.as_str());
        let was_in = people.len() < num_before;
        if people.is_empty() {
            self.rooms.remove(name);
        }
        was_in
    }
}

/// The application's own state; each handler gets a clone of this handle to it.
#[derive(Clone, Default)]
struct Chat(Arc<Mutex<State>>);

impl Chat {
    /// Never held across an await: other clients wait for it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns who `socket` is, if it is in the room.
    fn member(&self, name: &RoomName, socket: &SocketRef) -> Result<Person, HandlerError> {
        let state = self.state();
        let mut people = state.rooms.get(name).into_iter().flatten();
        people
            .find(|person| person.id == socket.id().as_str())
            .cloned()
            .ok_or_else(|| HandlerError::new("not_in_room", "Join the room first."))
    }
}

/// The namespace `/chat`.
pub(crate) fn gateway() -> Gateway {
    Gateway::new("/chat")
        .with_state(Chat::default())
        .authorize(|_, request| request.auth_as::<Profile>())
        .on_connect(arrive)
        .on("join", join)
        .on("leave", leave)
        .on("say", say)
        .on("typing", typing)
        .on("whisper", whisper)
        .on_disconnect(depart)
        .into()
}

async fn arrive(chat: Chat, socket: SocketRef) {
    let id = socket.id().clone();
    let rooms = HashSet::new();
    chat.state().clients.insert(id, Client { socket, rooms });
}

async fn join(
    chat: Chat,
    socket: SocketRef,
    Arg(name): Arg<RoomName>,
) -> Result<Ack<Vec<Person>>, HandlerError> {
    let me = Person::of(&socket)?;
    socket.join(name.room()).await?;
    let (people, is_new) = {
        let mut state = chat.state();
        let is_new = !state.leave(&name, socket.id());
        let people = state.join(&name, socket.id(), me.clone());
        (people.to_vec(), is_new)
    };
    if is_new {
        let others = socket.to(name.room());
        others.emit("joined", (&name, &me)).await?;
    }
    Ok(Ack(people))
}

async fn leave(
    chat: Chat,
    socket: SocketRef,
    Arg(name): Arg<RoomName>,
) -> Result<(), HandlerError> {
    let me = chat.member(&name, &socket)?;
    chat.state().leave(&name, socket.id());
    socket.leave(name.room()).await?;
    socket.to(name.room()).emit("left", (&name, &me)).await
}

async fn say(
    chat: Chat,
    socket: SocketRef,
    AllArgs((name, line)): AllArgs<(RoomName, Line)>,
) -> Result<(), HandlerError> {
    let me = chat.member(&name, &socket)?;
    let others = socket.to(name.room());
    others.emit("said", (&name, &me, &line)).await
}

/// Volatile: old news if it cannot be sent at once.
async fn typing(
    chat: Chat,
    socket: SocketRef,
    Arg(name): Arg<RoomName>,
) -> Result<(), HandlerError> {
    let me = chat.member(&name, &socket)?;
    let others = socket.to(name.room()).volatile();
    others.emit("typing", (&name, &me)).await
}

async fn whisper(
    chat: Chat,
    socket: SocketRef,
    AllArgs((id, line)): AllArgs<(String, Line)>,
) -> Result<(), HandlerError> {
    let me = Person::of(&socket)?;
    let other = {
        let state = chat.state();
        let client = state.clients.get(id.as_str());
        client.map(|client| client.socket.clone())
    };
    let other = other.ok_or_else(|| HandlerError::new("not_here", "Nobody has this id."))?;
    other
        .emit_with_ack::<serde_json::Value>("whispered", (&me, &line), WHISPER_TIMEOUT)
        .await?;
    Ok(())
}

/// Runs behind the client's last event; the socket is in no room any more.
async fn depart(
    chat: Chat,
    socket: SocketRef,
    reason: DisconnectReason,
) -> Result<(), HandlerError> {
    // Without the id: of a client 2.x, where those are let in, it is a secret.
    log::info!("a client left: {}", reason.as_str());
    let me = Person::of(&socket)?;
    let left: Vec<RoomName> = {
        let mut state = chat.state();
        let client = state.clients.remove(socket.id());
        let names = client.into_iter().flat_map(|client| client.rooms);
        let was_in = |name: &RoomName| state.leave(name, socket.id());
        names.filter(was_in).collect()
    };
    for name in left {
        socket.to(name.room()).emit("left", (&name, &me)).await?;
    }
    Ok(())
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_env()?;
    telemetry::init(&config.log_filter);
    let app = App::new(config)
        .page("/", include_str!("chat.html"))
        .gateway(gateway());
    let running = app.start().await?;
    log::info!("chat: listening on {}: open it in a browser", running.url());
    running.run_until_signal().await?;
    Ok(())
}
