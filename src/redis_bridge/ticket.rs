//! What goes with a question while it waits to be published: who asked, and whom the answers can be expected of.
//!
//! Whoever drops one before the question has gone out tells who asked that it never will.

use std::{sync::Arc, time::Instant};

use super::{
    calls::{Calls, Wants},
    messages::AskOthers,
    queue::Queue,
    wire::Channels,
};
use crate::{
    adapter::request::RequestId,
    engine_io::sid::InstanceId,
    hub::question::{Answer, Answers},
};

/// One question's.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) calls: Arc<Calls>,
    pub(super) id: RequestId,
    pub(super) answers: Answers,
    /// Where those who hear the question are counted.
    pub(super) census: Census,
    is_settled: bool,
}

/// What a count of those who hear a question is compared with.
#[derive(Debug)]
pub(super) struct Census {
    /// The channel of the question.
    pub(super) channel: String,
    /// Whether this instance hears it, too.
    pub(super) are_we_among: bool,
    /// The others of Sockhop who should.
    pub(super) peers: Vec<InstanceId>,
}

impl Census {
    /// Returns how many others are among those who listen.
    pub(super) fn others_among(&self, num_listeners: usize) -> usize {
        num_listeners.saturating_sub(usize::from(self.are_we_among))
    }
}

/// Puts a question into the queue, in its place behind what was published before it.
pub(super) fn enqueue(
    queue: &Queue,
    calls: &Arc<Calls>,
    channels: &Channels,
    ask: AskOthers,
    census: Census,
) {
    let AskOthers {
        namespace,
        question,
        timeout,
        answers,
    } = ask;
    let wants = Wants::of(&question);
    let begun = calls.begin(Instant::now(), namespace, wants, answers.clone(), timeout);
    let Some(id) = begun else {
        let reason = "too many questions are open".to_owned();
        // Whoever asked may have given up.
        _ = answers.send(Answer::Unreachable { reason });
        return;
    };
    let request = channels.ask(id.clone(), question);
    let ticket = Ticket::new(Arc::clone(calls), id, answers, census);
    match channels.request(&request) {
        Ok(outbound) => queue.push_question(outbound, ticket),
        Err(err) => ticket.fail(format!("the question cannot be published: {err}")),
    }
}

impl Ticket {
    /// Returns the ticket of the question `id`, whose answers go to `answers`.
    pub(super) fn new(calls: Arc<Calls>, id: RequestId, answers: Answers, census: Census) -> Self {
        Self {
            calls,
            id,
            answers,
            census,
            is_settled: false,
        }
    }

    /// Returns whether whoever asked does not wait any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.answers.is_closed()
    }

    /// The question has gone out: tells who asked how many others have heard it.
    pub(super) fn tell(mut self, num_instances: usize) {
        let peers = std::mem::take(&mut self.census.peers);
        // Whoever asked may have given up.
        _ = self.answers.send(Answer::Asked {
            num_instances,
            peers,
        });
        if num_instances == 0 {
            self.calls.end(&self.id);
        }
        self.settle();
    }

    /// The question has gone out, or who asked has been told that it may not have.
    pub(super) fn settle(mut self) {
        self.is_settled = true;
    }

    /// The question will not go out.
    pub(super) fn fail(mut self, reason: String) {
        self.end(reason);
    }

    fn end(&mut self, reason: String) {
        if !self.is_settled {
            self.is_settled = true;
            self.calls.end(&self.id);
            // Whoever asked may have given up.
            _ = self.answers.send(Answer::Unreachable { reason });
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end("the question could not be published in time".to_owned());
    }
}
