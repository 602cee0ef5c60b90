//! Accounts and tokens: who may speak, and how they prove it.
//!
//! Knows neither HTTP nor sockets: `http::auth` is the door for registering and logging in, gateways ask a
//! [`TokenVerifier`].
//!
//! ```text
//! register, login ──▶ Accounts ──▶ rules ──▶ password (argon2id) ──▶ store (redb | Redis) ──▶ token ──▶ Grant
//! a client's token ──▶ TokenVerifier ──▶ secret (the key in force) ──▶ token ──▶ Identity
//! ```
//! Verifying asks no store: it costs microseconds, and an outage of Redis ends no session.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    config::{Config, Secret},
    telemetry::with_causes,
};

mod error;
mod password;
mod registrations;
mod rules;
mod secret;
pub mod store;
mod token;

pub use error::{AuthError, HashFault, OpenError, TokenError};
pub use rules::{
    FieldErrors, FieldFault, MAX_PASSWORD_BYTES, MAX_PASSWORD_CHARS, MAX_USERNAME_CHARS,
    MIN_PASSWORD_CHARS, MIN_USERNAME_CHARS, UsernameKey,
};
pub use token::{ISSUER, Identity, MAX_TOKEN_BYTES};

use password::Passwords;
use registrations::{Registrations, Spent};
use secret::KeyRing;
use store::{
    Account, AccountStore, StoreError,
    redb::RedbStore,
    redis::{RedisStore, TimeOuts},
};
use token::TokenKey;

/// When a caller that met an unreachable store should come back.
pub const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Callers that may register or log in at a time, those included that wait for the store: it is asked in front of the hash, too, which
/// has fewer places. Beyond them: [`AuthError::Busy`].
pub const MAX_ASKING: usize = 1024;

/// Random bytes in a user's id; 15 of them are 20 characters of base64url.
const USER_ID_BYTES: usize = 15;

/// The accounts of this instance, or of all instances. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Accounts {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

struct Inner {
    store: Box<dyn AccountStore>,
    asking: Semaphore,
    registrations: Registrations,
    passwords: Passwords,
    keys: Arc<KeyRing>,
    expires_in: Duration,
}

/// Whom a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// Stable id: 20 characters of base64url.
    pub id: String,
    /// The name as it was registered.
    pub username: String,
}

/// What a successful registration or login brings. Serialises to the answer of the HTTP routes:
/// `{"access_token","token_type":"Bearer","expires_in","user":{"id","username"}}`.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The token.
    pub access_token: Secret,
    /// How long it admits, in seconds.
    pub expires_in: u64,
    /// Whom it is for.
    pub user: User,
}

impl Serialize for Grant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut grant = serializer.serialize_struct("Grant", 4)?;
        grant.serialize_field("access_token", self.access_token.expose())?;
        grant.serialize_field("token_type", "Bearer")?;
        grant.serialize_field("expires_in", &self.expires_in)?;
        grant.serialize_field("user", &self.user)?;
        grant.end()
    }
}

impl Accounts {
    /// Opens the accounts: in Redis if there is one, else in `DATA_DIR`. Blocks on the file; called at start.
    ///
    /// Redis is not asked yet, so that its absence keeps no instance from starting: call [`Self::refresh_key`] when it
    /// is connected.
    ///
    /// # Errors
    /// Texts that say what to do.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let keys = match &config.jwt.secret {
            Some(secret) => KeyRing::configured(secret.clone()),
            None => KeyRing::offering(secret::generate().map_err(OpenError::Random)?),
        };
        let store: Box<dyn AccountStore> = match &config.redis {
            Some(redis) => Box::new(RedisStore::new(redis, TimeOuts::default())?),
            None => {
                let store = RedbStore::open(&config.data_dir)?;
                keys.refresh_blocking(|candidate| store.shared_secret_blocking(candidate))
                    .map_err(|err| OpenError::Corrupt {
                        path: config.data_dir.join(store::redb::FILE_NAME),
                        reason: with_causes(&err),
                    })?;
                Box::new(store)
            }
        };
        Self::on(store, keys, config)
    }

    fn on(store: Box<dyn AccountStore>, keys: KeyRing, config: &Config) -> Result<Self, OpenError> {
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                asking: Semaphore::new(MAX_ASKING),
                registrations: Registrations::new(config.limits.max_registrations_per_address),
                passwords: Passwords::new(config.limits.max_connections_per_address)
                    .map_err(OpenError::Random)?,
                keys: Arc::new(keys),
                expires_in: config.jwt.expires_in,
            }),
        })
    }

    /// Makes an account and returns a token for it. `address` is what counts as the caller's, if it has one: each has a share.
    ///
    /// The password is hashed before the name is known to be free or taken: one `create` decides that for all
    /// instances, and the time of the answer tells nothing more than the answer.
    ///
    /// # Errors
    /// `Fields`, `Taken`, `TooManyRegistrations`, `Busy`, `Unavailable`, or a fault of ours.
    pub async fn register(
        &self,
        username: &str,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<Grant, AuthError> {
        let key = rules::judge_registration(username, password).map_err(AuthError::Fields)?;
        let _asking = self.ask()?;
        let token = address.map(|address| {
            let taken = self.inner.registrations.take(address, Instant::now());
            taken.map_err(
                |Spent { limit, retry_after }| AuthError::TooManyRegistrations {
                    address,
                    limit,
                    retry_after,
                },
            )
        });
        let token = token.transpose()?;
        let registered = self.make(key, username, password, address).await;
        if let (Some(token), Err(AuthError::Busy { .. } | AuthError::Unavailable { .. })) =
            (token, &registered)
        {
            self.inner.registrations.put_back(token);
        }
        registered
    }

    /// Makes the account of a registration that is sound and counted.
    async fn make(
        &self,
        key: UsernameKey,
        username: &str,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<Grant, AuthError> {
        // First, since it is cheap: an account whose owner gets no token would only be in the way of the next try.
        let token_key = self.token_key().await?;
        // Kept until the account is stored.
        let place = self.inner.passwords.place(address)?;
        let password_hash = (self.inner.passwords)
            .hash(&place, password.to_owned())
            .await?;
        let account = Account {
            id: random_id().map_err(AuthError::Random)?,
            username: username.to_owned(),
            password_hash,
        };
        let user = User {
            id: account.id.clone(),
            username: account.username.clone(),
        };
        self.inner.store.create(&key, account).await?;
        log::debug!("[Auth] registered user {}", user.id);
        self.grant(&token_key, user)
    }

    /// Returns a token for an account. `address` is as in [`Self::register`].
    ///
    /// # Errors
    /// `InvalidCredentials`, the same and as late whether the user is unknown or the password wrong; `Fields` for what
    /// is missing or larger than any account's; `Busy`, `Unavailable`, `Corrupt`, or a fault of ours.
    pub async fn login(
        &self,
        username: &str,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<Grant, AuthError> {
        let key = rules::judge_login(username, password).map_err(AuthError::Fields)?;
        let _asking = self.ask()?;
        // A name that no account can have costs the question all the same: its answer must not come sooner.
        let account = match &key {
            Some(key) => self.inner.store.find(key).await?,
            None => self
                .inner
                .store
                .find(&UsernameKey::of_nobody())
                .await?
                .and(None),
        };
        let stored = account
            .as_ref()
            .map(|account| account.password_hash.clone());
        let place = self.inner.passwords.place(address)?;
        let matches = self
            .inner
            .passwords
            .verify(&place, password.to_owned(), stored)
            .await?;
        match account {
            Some(account) if matches => {
                let token_key = self.token_key().await?;
                self.grant(
                    &token_key,
                    User {
                        id: account.id,
                        username: account.username,
                    },
                )
            }
            _ => Err(AuthError::InvalidCredentials),
        }
    }

    /// Lets a caller in, who is counted until what is returned is dropped.
    fn ask(&self) -> Result<SemaphorePermit<'_>, AuthError> {
        self.inner.asking.try_acquire().or(Err(password::busy()))
    }

    /// Returns what verifies this instance's tokens, and those of all instances on the same store.
    pub fn verifier(&self) -> TokenVerifier {
        TokenVerifier {
            keys: Arc::clone(&self.inner.keys),
        }
    }

    /// Agrees with the store on the token key. Called on every (re)connection to Redis.
    ///
    /// A Redis that came back empty gets the key in force again, so that tokens stay valid; one with another key is
    /// believed, with a warning in the log. Does nothing where `JWT_SECRET` is set.
    ///
    /// # Errors
    /// `Unavailable` or `Corrupt`; what was in force stays.
    pub async fn refresh_key(&self) -> Result<(), AuthError> {
        self.inner.keys.refresh(&*self.inner.store).await?;
        Ok(())
    }

    /// Returns the key to sign with: the store's, asked anew each time, so that what is signed here is accepted
    /// everywhere. One more look beside a hash that costs thousands of them.
    async fn token_key(&self) -> Result<Arc<TokenKey>, AuthError> {
        match self.inner.keys.refresh(&*self.inner.store).await {
            Ok(key) => Ok(key),
            Err(err) => match self.inner.keys.current() {
                Some(key) => {
                    log::debug!(
                        "[Auth] the token key is used unconfirmed: {}",
                        with_causes(&err)
                    );
                    Ok(key)
                }
                None => Err(err.into()),
            },
        }
    }

    fn grant(&self, token_key: &TokenKey, user: User) -> Result<Grant, AuthError> {
        let access_token = token_key
            .sign(&user.id, &user.username, self.inner.expires_in)
            .map_err(AuthError::Sign)?;
        Ok(Grant {
            access_token,
            expires_in: self.inner.expires_in.as_secs(),
            user,
        })
    }
}

impl From<StoreError> for AuthError {
    fn from(err: StoreError) -> Self {
        match err {
            StoreError::Taken => Self::Taken,
            StoreError::Unavailable { store, .. } => Self::Unavailable {
                store,
                retry_after: UNAVAILABLE_RETRY_AFTER,
                source: err,
            },
            StoreError::Corrupt { .. } => Self::Corrupt(err),
        }
    }
}

/// Verifies tokens with the key in force. Cheap to clone; asks no store and never waits.
#[derive(Clone)]
pub struct TokenVerifier {
    keys: Arc<KeyRing>,
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenVerifier").finish_non_exhaustive()
    }
}

impl TokenVerifier {
    /// Returns whether a key is known, so that tokens can be judged at all.
    pub fn has_key(&self) -> bool {
        self.keys.current().is_some()
    }

    /// Returns whom `token` speaks for.
    ///
    /// # Errors
    /// `Expired` for a genuine token past its time; `KeyUnavailable` while no key is known; `Invalid` for all else.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        match self.keys.current() {
            Some(key) => key.verify(token),
            None => Err(TokenError::KeyUnavailable),
        }
    }
}

fn random_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0; USER_ID_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::BoxFuture};

    use super::{store::StoreKind, *};
    use crate::{
        config::{DEFAULT_REDIS_PREFIX, RedisConfig},
        redis_server::RedisServer,
    };

    const PASSWORD: &str = "correct horse";

    fn on_file(dir: &tempfile::TempDir) -> Config {
        Config {
            data_dir: dir.path().join("data"),
            ..Config::default()
        }
    }

    fn on_redis(server: &RedisServer) -> Config {
        Config {
            redis: Some(RedisConfig {
                url: Secret::new(server.url()),
                prefix: DEFAULT_REDIS_PREFIX.to_owned(),
                adapter: Default::default(),
                tls: crate::config::RedisTls::default(),
            }),
            ..Config::default()
        }
    }

    #[test]
    fn accounts_can_be_shared_by_all_workers() {
        fn shareable<T: Clone + Send + Sync + 'static>() {}
        shareable::<Accounts>();
        shareable::<TokenVerifier>();
    }

    #[actix_rt::test]
    async fn who_registers_is_admitted_and_can_log_in() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = Accounts::open(&on_file(&dir)).unwrap();
        let grant = accounts.register("Alice", PASSWORD, None).await.unwrap();
        assert_eq!(
            (grant.user.username.as_str(), grant.expires_in),
            ("Alice", 3600)
        );
        let identity = accounts
            .verifier()
            .verify(grant.access_token.expose())
            .unwrap();
        assert_eq!(
            (&identity.user_id, &identity.username),
            (&grant.user.id, &grant.user.username)
        );

        let again = accounts.login("aLICE", PASSWORD, None).await.unwrap();
        assert_eq!(
            again.user, grant.user,
            "the name as registered, whatever was typed"
        );
        assert!(
            accounts
                .verifier()
                .verify(again.access_token.expose())
                .is_ok()
        );
    }

    #[actix_rt::test]
    async fn the_answer_is_the_documented_one() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = Accounts::open(&on_file(&dir)).unwrap();
        let grant = accounts.register("Alice", PASSWORD, None).await.unwrap();
        assert_eq!(
            serde_json::to_value(&grant).unwrap(),
            serde_json::json!({
                "access_token": grant.access_token.expose(),
                "token_type": "Bearer",
                "expires_in": 3600,
                "user": {"id": grant.user.id, "username": "Alice"},
            })
        );
        assert!(!format!("{grant:?}").contains(grant.access_token.expose()));
    }

    #[actix_rt::test]
    async fn an_unknown_user_and_a_wrong_password_get_one_answer() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = Accounts::open(&on_file(&dir)).unwrap();
        accounts.register("alice", PASSWORD, None).await.unwrap();
        for (username, password) in [
            ("alice", "wrong horse"),
            ("bob", PASSWORD),
            ("al\u{456}ce", PASSWORD),
            ("alice", "x"),
        ] {
            let result = accounts.login(username, password, None).await;
            assert!(
                matches!(result, Err(AuthError::InvalidCredentials)),
                "{username:?} {password:?}: {result:?}"
            );
        }
    }

    #[actix_rt::test]
    async fn an_account_and_its_tokens_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let config = on_file(&dir);
        let accounts = Accounts::open(&config).unwrap();
        let grant = accounts.register("alice", PASSWORD, None).await.unwrap();
        drop(accounts);

        let accounts = Accounts::open(&config).unwrap();
        assert!(
            accounts
                .verifier()
                .verify(grant.access_token.expose())
                .is_ok()
        );
        assert_eq!(
            accounts.login("alice", PASSWORD, None).await.unwrap().user,
            grant.user
        );
    }

    #[actix_rt::test]
    async fn a_configured_key_is_in_force_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = on_file(&dir);
        config.jwt.secret = Some(Secret::new("0123456789abcdef0123456789abcdef"));
        let accounts = Accounts::open(&config).unwrap();
        let grant = accounts.register("alice", PASSWORD, None).await.unwrap();
        drop(accounts);
        config.jwt.secret = None;
        let accounts = Accounts::open(&config).unwrap();
        let verdict = accounts.verifier().verify(grant.access_token.expose());
        assert_eq!(verdict, Err(TokenError::Invalid));
    }

    #[test]
    fn a_damaged_key_is_not_signed_with() {
        let dir = tempfile::tempdir().unwrap();
        let config = on_file(&dir);
        let store = RedbStore::open(&config.data_dir).unwrap();
        let kept = store.shared_secret_blocking(&Secret::new("short"));
        assert!(matches!(kept, Err(StoreError::Corrupt { .. })));
        drop(store);
        let Err(err) = Accounts::open(&config) else {
            panic!("opened with a short key")
        };
        assert!(matches!(err, OpenError::Corrupt { .. }), "{err:?}");
    }

    /// A store that never answers.
    struct Hanging;

    impl AccountStore for Hanging {
        fn create<'a>(
            &'a self,
            _: &'a UsernameKey,
            _: Account,
        ) -> BoxFuture<'a, Result<(), StoreError>> {
            Box::pin(std::future::pending())
        }

        fn find<'a>(
            &'a self,
            _: &'a UsernameKey,
        ) -> BoxFuture<'a, Result<Option<Account>, StoreError>> {
            Box::pin(std::future::pending())
        }

        fn shared_secret(&self, _: Secret) -> BoxFuture<'_, Result<Secret, StoreError>> {
            Box::pin(std::future::pending())
        }
    }

    /// A bug: whoever waited for the store in front of the hash had no place, and any number could.
    #[actix_rt::test]
    async fn only_so_many_wait_for_the_store() {
        let accounts = Accounts::on(
            Box::new(Hanging),
            KeyRing::offering(secret::generate().unwrap()),
            &Config::default(),
        );
        let accounts = accounts.unwrap();
        let begin = |at: usize| match at % 2 {
            0 => accounts.login("alice", PASSWORD, None).boxed(),
            _ => accounts.register("alice", PASSWORD, None).boxed(),
        };
        let mut waiting: Vec<_> = (0..MAX_ASKING).map(begin).collect();
        for asks in &mut waiting {
            assert!(asks.now_or_never().is_none());
        }
        for at in 0..2 {
            let refused = begin(at).now_or_never();
            assert!(matches!(refused, Some(Err(AuthError::Busy { .. }))));
        }
        waiting.pop();
        assert!(begin(0).now_or_never().is_none());
    }

    #[actix_rt::test]
    async fn a_registration_that_we_fail_does_not_count() {
        let mut server = RedisServer::start();
        server.kill();
        let mut config = on_redis(&server);
        config.limits.max_registrations_per_address = Some(1);
        let accounts = Accounts::open(&config).unwrap();
        let address = Some([1, 2, 3, 4].into());
        for _ in 0..2 {
            let failed = accounts.register("alice", PASSWORD, address).await;
            let is_unavailable = matches!(failed, Err(AuthError::Unavailable { .. }));
            assert!(is_unavailable, "{failed:?}");
        }
        server.restart_on_same_port();
        let registered = accounts.register("alice", PASSWORD, address).await;
        assert!(registered.is_ok(), "{registered:?}");
        let refused = accounts.register("bob", PASSWORD, address).await;
        let is_spent = matches!(refused, Err(AuthError::TooManyRegistrations { .. }));
        assert!(is_spent, "{refused:?}");
        let nobodys = accounts.register("bob", PASSWORD, None).await;
        assert!(nobodys.is_ok(), "{nobodys:?}");
    }

    #[actix_rt::test]
    async fn who_registers_at_one_instance_logs_in_at_the_other() {
        let server = RedisServer::start();
        let (one, other) = (
            Accounts::open(&on_redis(&server)).unwrap(),
            Accounts::open(&on_redis(&server)).unwrap(),
        );
        let grant = one.register("alice", PASSWORD, None).await.unwrap();
        // `other` has not met Redis yet.
        let token = grant.access_token.expose();
        assert_eq!(
            other.verifier().verify(token),
            Err(TokenError::KeyUnavailable)
        );
        other.refresh_key().await.unwrap();
        assert_eq!(
            other.verifier().verify(token).unwrap().user_id,
            grant.user.id
        );

        let grant = other.login("alice", PASSWORD, None).await.unwrap();
        assert!(one.verifier().verify(grant.access_token.expose()).is_ok());
    }

    #[actix_rt::test]
    async fn a_name_asked_for_at_two_instances_at_once_goes_to_one() {
        let server = RedisServer::start();
        let (one, other) = (
            Accounts::open(&on_redis(&server)).unwrap(),
            Accounts::open(&on_redis(&server)).unwrap(),
        );
        let (first, second) = tokio::join!(
            one.register("alice", PASSWORD, None),
            other.register("ALICE", PASSWORD, None)
        );
        let (winner, loser) = match (first, second) {
            (Ok(winner), Err(loser)) | (Err(loser), Ok(winner)) => (winner, loser),
            both => panic!("{both:?}"),
        };
        assert!(matches!(loser, AuthError::Taken), "{loser:?}");
        assert_eq!(
            one.login("alice", PASSWORD, None).await.unwrap().user,
            winner.user
        );
        assert!(
            other
                .verifier()
                .verify(winner.access_token.expose())
                .is_ok(),
            "one key for both"
        );
    }

    #[actix_rt::test]
    async fn an_instance_starts_without_redis_and_serves_once_it_is_there() {
        let mut server = RedisServer::start();
        server.kill();
        let accounts = Accounts::open(&on_redis(&server)).unwrap();
        assert_eq!(
            accounts.verifier().verify("x"),
            Err(TokenError::KeyUnavailable)
        );
        for result in [
            accounts.register("alice", PASSWORD, None).await,
            accounts.login("alice", PASSWORD, None).await,
        ] {
            assert!(
                matches!(
                    result,
                    Err(AuthError::Unavailable {
                        store: StoreKind::Redis,
                        ..
                    })
                ),
                "{result:?}"
            );
        }
        assert!(accounts.refresh_key().await.is_err());

        server.restart_on_same_port();
        // The key is fetched on the way, without the bridge.
        let grant = accounts.register("alice", PASSWORD, None).await.unwrap();
        assert!(
            accounts
                .verifier()
                .verify(grant.access_token.expose())
                .is_ok()
        );
    }

    #[actix_rt::test]
    async fn tokens_outlive_a_redis_that_came_back_empty() {
        let mut server = RedisServer::start();
        let accounts = Accounts::open(&on_redis(&server)).unwrap();
        let grant = accounts.register("alice", PASSWORD, None).await.unwrap();
        let token = grant.access_token.expose();
        server.kill();
        assert!(
            accounts.verifier().verify(token).is_ok(),
            "verifying asks no store"
        );
        assert!(accounts.refresh_key().await.is_err());
        server.restart_on_same_port();
        accounts.refresh_key().await.unwrap();

        let newcomer = Accounts::open(&on_redis(&server)).unwrap();
        newcomer.refresh_key().await.unwrap();
        assert!(
            newcomer.verifier().verify(token).is_ok(),
            "the key is in Redis again"
        );
    }

    #[actix_rt::test]
    async fn another_key_in_redis_is_adopted() {
        let mut server = RedisServer::start();
        let old = Accounts::open(&on_redis(&server)).unwrap();
        old.refresh_key().await.unwrap();
        server.kill();
        server.restart_on_same_port();
        let new = Accounts::open(&on_redis(&server)).unwrap();
        let grant = new.register("alice", PASSWORD, None).await.unwrap();
        let token = grant.access_token.expose();
        assert_eq!(old.verifier().verify(token), Err(TokenError::Invalid));
        old.refresh_key().await.unwrap();
        assert!(old.verifier().verify(token).is_ok());
    }
}
