//! How much work a command may make for the hub, which does one thing at a time: what one asks for, all wait for.
//!
//! Pure arithmetic. Most of it is linear in the sockets, as a broadcast is, and always allowed. What multiplies them (putting many
//! sockets into many rooms, leaving many rooms out) has a limit, since a single message of whoever may publish to Redis could
//! name 65,536 rooms for 100,000 sockets, and nobody would be served for half an hour.

use super::broadcast::Target;

/// Steps that one command may take: about half a second at the worst.
pub const MAX_STEPS: usize = 1_000_000;

/// Rooms that a command may always name, whatever the number of sockets.
pub const FEW_ROOMS: usize = 16;

/// The command would keep everybody waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{num_sockets} sockets times {num_rooms} rooms is more than the {MAX_STEPS} steps that one command may take"
)]
pub struct TooMuchWork {
    /// How many sockets the target's rooms have, those in several of them as often.
    pub num_sockets: usize,
    /// How many rooms the command names.
    pub num_rooms: usize,
}

/// Returns how many rooms a command names.
fn num_named(target: &Target, num_moves: usize) -> usize {
    target.rooms.len() + target.except.len() + num_moves
}

/// Returns whether a broadcast may be refused, if there are sockets enough.
pub fn may_be_too_much(target: &Target) -> bool {
    num_named(target, 0) > FEW_ROOMS
}

/// Judges a command for so many sockets, counted by rooms, that moves each in or out of `num_moves` rooms. They are counted only if
/// that matters.
///
/// # Errors
/// It is too much.
pub fn judge(
    count_sockets: impl FnOnce() -> usize,
    target: &Target,
    num_moves: usize,
) -> Result<(), TooMuchWork> {
    let num_rooms = num_named(target, num_moves);
    if num_rooms <= FEW_ROOMS {
        return Ok(());
    }
    let num_sockets = count_sockets();
    // What a socket costs: to be looked at, to be looked up in each room that is left out, and to be moved.
    let per_socket = 1 + target.except.len() + num_moves;
    if num_sockets.saturating_mul(per_socket) <= MAX_STEPS {
        return Ok(());
    }
    Err(TooMuchWork {
        num_sockets,
        num_rooms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(num_rooms: usize, num_except: usize) -> Target {
        let rooms = |num| (0..num).map(|n| format!("room {n}").into()).collect();
        Target {
            rooms: rooms(num_rooms),
            except: rooms(num_except),
        }
    }

    #[test]
    fn what_is_linear_in_the_sockets_is_always_allowed() {
        for (to, except, moves) in [(0, 0, 0), (0, 1, 0), (3, 2, 11), (1, 0, 15)] {
            let count = || panic!("the sockets need not be counted");
            assert_eq!(judge(count, &target(to, except), moves), Ok(()));
        }
    }

    #[test]
    fn many_rooms_for_few_sockets_and_few_rooms_for_many_are_allowed() {
        assert_eq!(judge(|| 1, &target(0, 0), 65_536), Ok(()));
        assert_eq!(judge(|| 10_000, &target(0, 0), 99), Ok(()));
        assert_eq!(judge(|| 900_000, &target(65_536, 0), 0), Ok(()));
    }

    #[test]
    fn many_rooms_for_many_sockets_are_too_much() {
        for (sockets, to, except, moves) in [
            (100_000, 0, 0, 65_536),
            (100_000, 0, 65_536, 0),
            (65_536 * 100_000, 65_536, 0, 0),
            (usize::MAX, 0, 17, 17),
        ] {
            let refused = judge(|| sockets, &target(to, except), moves);
            assert_eq!(refused.unwrap_err().num_sockets, sockets);
        }
    }
}
