//! Password hashing: argon2id, off the arbiters, a bounded number at a time.
//!
//! Does not know accounts. A hash costs 19 MiB and tens of milliseconds of a core, so that a flood of registrations
//! or guesses is a cheap attack on the events: half of the cores hash, [`MAX_WAITING`] more callers wait for that or for what they do
//! with it, all further ones are told to come back. One address has at most a quarter of these places.
//!
//! Source: OWASP Password Storage Cheat Sheet, Argon2id, its second choice of equal strength.
//! Limits: [`MAX_WAITING`]; memory is 19 MiB for each running hash.

use std::{net::IpAddr, sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{self, PasswordHasher as _, PasswordVerifier as _, phc},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::error::{AuthError, HashFault};
use crate::slots::{Slot, Slots};

/// Memory of one hash, in KiB.
pub(super) const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over that memory.
pub(super) const PASSES: u32 = 2;
/// Lanes of one hash; more would not make it faster, since it runs on one thread.
pub(super) const LANES: u32 = 1;
/// Callers that may wait beside those that hash: for a hash to begin, or for an account to be stored. Beyond them: [`AuthError::Busy`].
pub(super) const MAX_WAITING: usize = 32;
/// What part of the places one address may have: a quarter, so that whoever fills them keeps out no others.
const SHARES: usize = 4;
/// Places that one address may have in any case.
const MIN_SHARE: usize = 2;
/// When a caller that found no place should come back: about what a full queue takes on one slow core.
pub(super) const BUSY_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Most work that a stored hash may ask for, as a multiple of ours: room for costs to be raised by a later version
/// while this one still runs beside it, not for a poisoned store to take all memory.
const MAX_COST_FACTOR: u32 = 4;
const SALT_BYTES: usize = 16;

const PARAMS: Params = match Params::new(MEMORY_KIB, PASSES, LANES, None) {
    Ok(params) => params,
    Err(_) => panic!("the constants above are out of argon2's range"),
};

/// Returns what a caller is told for whom there is no place.
pub(super) fn busy() -> AuthError {
    AuthError::Busy {
        retry_after: BUSY_RETRY_AFTER,
    }
}

/// A place among those who wait for a hash, or have one and are not done, and among those of its address.
/// The share is free first: whoever finds a place finds that as it is.
pub(super) struct Place(Arc<(Slot, OwnedSemaphorePermit)>);

/// Hashes and compares passwords. Cheap to clone; clones share the bounds.
#[derive(Clone)]
pub(super) struct Passwords {
    inner: Arc<Inner>,
}

struct Inner {
    argon2: Argon2<'static>,
    /// A place for each running and each waiting caller, and for each that goes on with what it got.
    places: Arc<Semaphore>,
    /// Those that each address may have.
    shares: Arc<Slots>,
    /// A turn for each running one.
    turns: Arc<Semaphore>,
    /// Compared with when there is no account: same cost, never equal.
    dummy: String,
}

impl Passwords {
    /// Prepares hashing on half of the cores, at least one. `per_address` is `MAX_CONNECTIONS_PER_ADDRESS`, which says what addresses
    /// are counted.
    ///
    /// # Errors
    /// The random source failed.
    pub(super) fn new(per_address: Option<usize>) -> Result<Self, getrandom::Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with(PARAMS, (cores / 2).max(1), MAX_WAITING, per_address)
    }

    fn with(
        params: Params,
        running: usize,
        waiting: usize,
        per_address: Option<usize>,
    ) -> Result<Self, getrandom::Error> {
        let dummy = dummy_hash(&params)?;
        let num_places = running.saturating_add(waiting);
        let share = (num_places / SHARES).max(MIN_SHARE);
        Ok(Self {
            inner: Arc::new(Inner {
                argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
                places: Arc::new(Semaphore::new(num_places)),
                shares: Slots::of_each(share, per_address),
                turns: Arc::new(Semaphore::new(running)),
                dummy,
            }),
        })
    }

    /// Takes a place, for as long as a caller has anything to do with the hash: an account is stored in it, too, or more would wait for
    /// a slow disk than for a core. `address` is what counts as the caller's, if it has one.
    ///
    /// # Errors
    /// `Busy` when none is free, or none for this address.
    pub(super) fn place(&self, address: Option<IpAddr>) -> Result<Place, AuthError> {
        let slot = match address {
            Some(address) => self.inner.shares.take(address).or(Err(busy()))?,
            None => Slot::default(),
        };
        let place = Arc::clone(&self.inner.places).try_acquire_owned();
        place
            .map(|place| Place(Arc::new((slot, place))))
            .map_err(|err| match err {
                TryAcquireError::NoPermits => busy(),
                // Never closed; if it were, nothing would be hashed any more.
                TryAcquireError::Closed => AuthError::Hash(HashFault::CutShort),
            })
    }

    /// Returns the PHC string of `password` under a fresh salt.
    ///
    /// # Errors
    /// `Hash` when hashing failed.
    pub(super) async fn hash(&self, place: &Place, password: String) -> Result<String, AuthError> {
        self.run(place, move |inner| inner.hash(&password)).await
    }

    /// Returns whether `password` is the one behind `stored`. With `None` it takes the same time and is not.
    ///
    /// # Errors
    /// `Hash` when `stored` cannot be compared with.
    pub(super) async fn verify(
        &self,
        place: &Place,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, AuthError> {
        self.run(place, move |inner| match &stored {
            Some(stored) => inner.verify(&password, stored),
            // The dummy's tag is random, so the answer is no already; say it all the same.
            None => inner.verify(&password, &inner.dummy).map(|_| false),
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        place: &Place,
        work: impl FnOnce(&Inner) -> Result<T, HashFault> + Send + 'static,
    ) -> Result<T, AuthError> {
        let place = Arc::clone(&place.0);
        let Ok(turn) = Arc::clone(&self.inner.turns).acquire_owned().await else {
            return Err(AuthError::Hash(HashFault::CutShort));
        };
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&inner);
            // Held by the work, not by the caller: a caller that goes away frees no core.
            drop((turn, place));
            result
        });
        match done.await {
            Ok(result) => result.map_err(AuthError::Hash),
            Err(err) => {
                log::error!("[Auth] hashing was cut short: {err}");
                Err(AuthError::Hash(HashFault::CutShort))
            }
        }
    }
}

impl Inner {
    fn hash(&self, password: &str) -> Result<String, HashFault> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(HashFault::Salt)?;
        self.argon2
            .hash_password_with_salt(password.as_bytes(), &salt)
            .map(|hash| hash.to_string())
            .map_err(HashFault::Argon2)
    }

    fn verify(&self, password: &str, stored: &str) -> Result<bool, HashFault> {
        let Ok(hash) = phc::PasswordHash::new(stored) else {
            return Err(HashFault::StoredHash);
        };
        let Ok(params) = Params::try_from(&hash) else {
            return Err(HashFault::StoredHash);
        };
        // The stored string says how much work to do, and the store may be a Redis that others write to.
        let bearable = hash.algorithm == Algorithm::Argon2id.ident()
            && params.m_cost() <= MEMORY_KIB * MAX_COST_FACTOR
            && params.t_cost() <= PASSES * MAX_COST_FACTOR
            && params.p_cost() <= LANES * MAX_COST_FACTOR
            && hash.salt.is_some()
            && hash.hash.is_some();
        if !bearable {
            return Err(HashFault::StoredHash);
        }
        match self.argon2.verify_password(password.as_bytes(), &hash) {
            Ok(()) => Ok(true),
            Err(password_hash::Error::PasswordInvalid) => Ok(false),
            Err(err) => Err(HashFault::Argon2(err)),
        }
    }
}

/// Returns a hash of the same cost whose tag is random, so that no password leads to it.
fn dummy_hash(params: &Params) -> Result<String, getrandom::Error> {
    let mut random = [0; SALT_BYTES + Params::DEFAULT_OUTPUT_LEN];
    getrandom::fill(&mut random)?;
    let (salt, tag) = random.split_at(SALT_BYTES);
    let hash = phc::PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: params
            .try_into()
            .expect("our own parameters are well formed"),
        salt: Some(phc::Salt::new(salt).expect("16 bytes are the recommended length")),
        hash: Some(phc::Output::new(tag).expect("32 bytes are argon2's default length")),
    };
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        task::{Context, Waker},
    };

    use super::*;

    /// A real argon2id that costs nothing.
    fn cheap(running: usize, waiting: usize) -> Passwords {
        Passwords::with(Params::new(8, 1, 1, None).unwrap(), running, waiting, None).unwrap()
    }

    fn place(passwords: &Passwords) -> Place {
        passwords.place(None).unwrap()
    }

    #[actix_rt::test]
    async fn a_password_matches_its_own_hash_alone() {
        let passwords = Passwords::new(None).unwrap();
        let hash = passwords
            .hash(&place(&passwords), "correct horse".into())
            .await
            .unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        assert!(
            passwords
                .verify(
                    &place(&passwords),
                    "correct horse".into(),
                    Some(hash.clone())
                )
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .verify(&place(&passwords), "correct hors".into(), Some(hash))
                .await
                .unwrap()
        );
    }

    #[actix_rt::test]
    async fn each_hash_has_its_own_salt() {
        let passwords = cheap(1, 0);
        let first = passwords
            .hash(&place(&passwords), "same".into())
            .await
            .unwrap();
        assert_ne!(
            first,
            passwords
                .hash(&place(&passwords), "same".into())
                .await
                .unwrap()
        );
    }

    #[actix_rt::test]
    async fn without_an_account_the_same_work_is_done_in_vain() {
        let passwords = cheap(1, 0);
        let real = passwords
            .hash(&place(&passwords), "x".into())
            .await
            .unwrap();
        let cost = |hash: &str| {
            let hash = phc::PasswordHash::new(hash).unwrap();
            let params = Params::try_from(&hash).unwrap();
            let lengths = (hash.salt.unwrap().len(), hash.hash.unwrap().len());
            (
                hash.algorithm,
                params.m_cost(),
                params.t_cost(),
                params.p_cost(),
                lengths,
            )
        };
        assert_eq!(cost(&real), cost(&passwords.inner.dummy));
        assert!(
            !passwords
                .verify(&place(&passwords), "x".into(), None)
                .await
                .unwrap()
        );
    }

    #[actix_rt::test]
    async fn a_stored_hash_cannot_ask_for_unbearable_work() {
        let passwords = cheap(1, 0);
        let good = passwords
            .hash(&place(&passwords), "x".into())
            .await
            .unwrap();
        for stored in [
            good.replace("m=8,", "m=4000000,"),
            good.replace("t=1,", "t=4000000,"),
            good.replace("argon2id", "argon2i"),
            good.replace("argon2id", "scrypt"),
            "$argon2id$v=19$m=8,t=1,p=1".to_owned(),
            String::new(),
            "plain text".to_owned(),
        ] {
            let result = passwords
                .verify(&place(&passwords), "x".into(), Some(stored.clone()))
                .await;
            assert!(
                matches!(result, Err(AuthError::Hash(HashFault::StoredHash))),
                "{stored}: {result:?}"
            );
        }
    }

    #[actix_rt::test]
    async fn beyond_the_places_callers_are_told_to_come_back() {
        let passwords = cheap(1, 1);
        let (release, gate) = mpsc::channel::<()>();
        let (began, running) = tokio::sync::oneshot::channel();
        let first = actix_rt::spawn({
            let passwords = passwords.clone();
            async move {
                let place = place(&passwords);
                passwords
                    .run(&place, move |_| {
                        began.send(()).unwrap();
                        gate.recv().unwrap();
                        Ok(())
                    })
                    .await
            }
        });
        running.await.unwrap();
        let waiting = place(&passwords);
        let mut second = Box::pin(passwords.hash(&waiting, "second".into()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(
            second.as_mut().poll(&mut context).is_pending(),
            "one may wait"
        );
        assert!(matches!(passwords.place(None), Err(AuthError::Busy { .. })));

        release.send(()).unwrap();
        first.await.unwrap().unwrap();
        second.await.unwrap();
        // Whoever has its hash goes on with it, and keeps its place.
        let _first = place(&passwords);
        assert!(matches!(passwords.place(None), Err(AuthError::Busy { .. })));
        drop(waiting);
        _ = place(&passwords);
    }

    #[actix_rt::test]
    async fn a_caller_that_goes_away_frees_its_place_but_not_a_busy_core() {
        let passwords = cheap(1, 0);
        let (release, gate) = mpsc::channel::<()>();
        let (began, running) = tokio::sync::oneshot::channel();
        let caller = actix_rt::spawn({
            let passwords = passwords.clone();
            async move {
                let place = place(&passwords);
                passwords
                    .run(&place, move |_| {
                        began.send(()).unwrap();
                        gate.recv().unwrap();
                        Ok(())
                    })
                    .await
            }
        });
        running.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert!(matches!(passwords.place(None), Err(AuthError::Busy { .. })));
        release.send(()).unwrap();
        let _place = Arc::clone(&passwords.inner.places)
            .acquire_owned()
            .await
            .unwrap();
    }

    /// A bug: whoever sent as many as there are places kept everybody from logging in.
    #[actix_rt::test]
    async fn an_address_has_a_quarter_of_the_places_until_its_hashes_are_done() {
        let passwords = cheap(1, 15);
        let address = IpAddr::from([1, 2, 3, 4]);
        let one = Some(address);
        let is_busy = |address| matches!(passwords.place(address), Err(AuthError::Busy { .. }));
        let (release, gate) = mpsc::channel::<()>();
        let (began, running) = tokio::sync::oneshot::channel();
        let gone = actix_rt::spawn({
            let passwords = passwords.clone();
            async move {
                let place = passwords.place(one).unwrap();
                let work = move |_: &Inner| {
                    began.send(()).unwrap();
                    _ = gate.recv();
                    Ok(())
                };
                passwords.run(&place, work).await
            }
        });
        running.await.unwrap();
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        let mut held: Vec<_> = (0..3).map(|_| passwords.place(one).unwrap()).collect();
        assert!(is_busy(one), "one still hashes");
        for other in [
            None,
            Some([5, 6, 7, 8].into()),
            Some([10, 0, 0, 1].into()),
            Some([10, 0, 0, 1].into()),
            Some([10, 0, 0, 1].into()),
            Some([10, 0, 0, 1].into()),
            Some([10, 0, 0, 1].into()),
        ] {
            held.push(passwords.place(other).unwrap());
        }
        drop(release);
        let all = Arc::clone(&passwords.inner.places).acquire_many_owned(6);
        drop(all.await.unwrap());
        held.push(passwords.place(one).unwrap());
        assert!(is_busy(one));
        held.remove(0);
        assert!(!is_busy(one));
        let few = cheap(1, 0);
        drop(few.place(one).unwrap());
        assert_eq!(few.inner.shares.take(address).map(drop), Ok(()));
    }

    #[actix_rt::test]
    async fn a_panic_is_answered_and_gives_its_place_back() {
        let passwords = cheap(1, 0);
        let result = passwords
            .run(&place(&passwords), |_| -> Result<(), HashFault> {
                panic!("on purpose")
            })
            .await;
        assert!(matches!(result, Err(AuthError::Hash(HashFault::CutShort))));
        passwords
            .hash(&place(&passwords), "x".into())
            .await
            .unwrap();
    }
}
