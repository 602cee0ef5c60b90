//! Accounts of a single instance: `accounts.redb` in `DATA_DIR`.
//!
//! Opened once, before anything is bound; from then on every call runs on a blocking thread. A commit is on the disk
//! before it is answered, so that a `kill -9` or a power cut loses no account that a client was told of. One process
//! has the file open at a time.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use redb::{Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};

use super::{Account, AccountStore, BoxError, Item, StoreError, StoreKind, checked_secret};
use crate::{
    auth::{error::OpenError, rules::UsernameKey},
    config::Secret,
};

/// Name of the file in `DATA_DIR`.
pub const FILE_NAME: &str = "accounts.redb";

/// Memory for pages: an instance reads one account at a time, and redb's default is 1 GiB.
const CACHE_BYTES: usize = 4 << 20;
/// Key of an account → its JSON.
const ACCOUNTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("accounts");
/// Singletons by name.
const SECRETS: TableDefinition<'_, &str, &str> = TableDefinition::new("secrets");
/// Name of the token key in [`SECRETS`].
const JWT_SECRET: &str = "jwt-secret";

/// Accounts in a file.
#[derive(Debug, Clone)]
pub struct RedbStore {
    database: Arc<Database>,
}

impl RedbStore {
    /// Opens the file in `dir`, and makes both if need be, for this user alone. Blocks; called at start.
    ///
    /// # Errors
    /// Texts that say what to do.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        create_dir(dir)
            .map_err(|source| OpenError::CreateDir { path: dir.to_owned(), source })?;
        let path = dir.join(FILE_NAME);
        create_file(&path).map_err(|source| OpenError::Write { path: dir.to_owned(), source })?;
        let database = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            // Without it redb trusts the file, and may panic later on a damaged one.
            .set_check_integrity_on_open(true)
            .create(&path)
            .map_err(|err| open_error(err, dir, &path))?;
        let store = Self { database: Arc::new(database) };
        match store.create_tables(dir) {
            Ok(()) => Ok(store),
            Err(Fault::Corrupt(source)) => {
                Err(OpenError::Corrupt { path, reason: source.to_string() })
            }
            Err(Fault::Storage(source)) => Err(OpenError::Write {
                path: dir.to_owned(),
                source: io::Error::other(source.to_string()),
            }),
        }
    }

    /// Makes the tables, so that a reader always finds them, and proves that the file can be written.
    fn create_tables(&self, dir: &Path) -> Result<(), Fault> {
        let transaction = self.begin_write()?;
        transaction.open_table(ACCOUNTS)?;
        transaction.open_table(SECRETS)?;
        transaction.commit()?;
        // The file's name must be as durable as its content. Not every file system can, and the content is not at risk.
        if let Err(err) = File::open(dir).and_then(|dir| dir.sync_all()) {
            log::debug!("{dir:?} cannot be synced: {err}");
        }
        Ok(())
    }

    fn begin_write(&self) -> Result<redb::WriteTransaction, Fault> {
        let mut transaction = self.database.begin_write()?;
        transaction
            .set_durability(Durability::Immediate)
            .map_err(|err| Fault::Storage(Box::new(err)))?;
        Ok(transaction)
    }

    fn create_blocking(&self, key: &UsernameKey, json: &[u8]) -> Result<bool, Fault> {
        let transaction = self.begin_write()?;
        let is_new = {
            let mut table = transaction.open_table(ACCOUNTS)?;
            let taken = table.get(key.as_str())?.is_some();
            if !taken {
                table.insert(key.as_str(), json)?;
            }
            !taken
        };
        if is_new {
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        Ok(is_new)
    }

    fn find_blocking(&self, key: &UsernameKey) -> Result<Option<Vec<u8>>, Fault> {
        let table = self.database.begin_read()?.open_table(ACCOUNTS)?;
        Ok(table.get(key.as_str())?.map(|json| json.value().to_vec()))
    }

    /// Does what [`AccountStore::shared_secret`] does, on the caller's thread. Called at start.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub fn shared_secret_blocking(&self, candidate: &Secret) -> Result<Secret, StoreError> {
        checked_secret(&self.secret_or(candidate).map_err(|fault| fault.of(Item::Key))?)
    }

    fn secret_or(&self, candidate: &Secret) -> Result<String, Fault> {
        let kept = {
            let table = self.database.begin_read()?.open_table(SECRETS)?;
            table.get(JWT_SECRET)?.map(|secret| secret.value().to_owned())
        };
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let transaction = self.begin_write()?;
        let kept = {
            let mut table = transaction.open_table(SECRETS)?;
            let kept = table.get(JWT_SECRET)?.map(|secret| secret.value().to_owned());
            match kept {
                Some(kept) => kept,
                None => {
                    table.insert(JWT_SECRET, candidate.expose())?;
                    candidate.expose().to_owned()
                }
            }
        };
        transaction.commit()?;
        Ok(kept)
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        item: Item,
        work: impl FnOnce(&Self) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result.map_err(|fault| fault.of(item)),
            Err(err) => Err(Fault::Storage(Box::new(err)).of(item)),
        }
    }
}

impl AccountStore for RedbStore {
    fn create<'a>(
        &'a self,
        key: &'a UsernameKey,
        account: Account,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let json = account.to_json()?;
            let key = key.clone();
            let is_new = self
                .blocking(Item::Account, move |store| store.create_blocking(&key, &json))
                .await?;
            if is_new { Ok(()) } else { Err(StoreError::Taken) }
        })
    }

    fn find<'a>(
        &'a self,
        key: &'a UsernameKey,
    ) -> BoxFuture<'a, Result<Option<Account>, StoreError>> {
        Box::pin(async move {
            let asked = key.clone();
            let json =
                self.blocking(Item::Account, move |store| store.find_blocking(&asked)).await?;
            json.map(|json| Account::from_json(&json, key)).transpose()
        })
    }

    fn shared_secret(&self, candidate: Secret) -> BoxFuture<'_, Result<Secret, StoreError>> {
        Box::pin(async move {
            let kept =
                self.blocking(Item::Key, move |store| store.secret_or(&candidate)).await?;
            checked_secret(&kept)
        })
    }
}

/// What redb says, in the two kinds that matter to a caller.
enum Fault {
    Corrupt(BoxError),
    Storage(BoxError),
}

impl Fault {
    fn of(self, what: Item) -> StoreError {
        match self {
            Self::Corrupt(source) => StoreError::Corrupt { what, source },
            Self::Storage(source) => StoreError::Unavailable { store: StoreKind::File, source },
        }
    }
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(err: E) -> Self {
        let err = err.into();
        match err {
            redb::Error::Corrupted(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableDoesNotExist(_) => Self::Corrupt(Box::new(err)),
            _ => Self::Storage(Box::new(err)),
        }
    }
}

fn open_error(err: DatabaseError, dir: &Path, path: &Path) -> OpenError {
    let corrupt =
        |reason: String| OpenError::Corrupt { path: path.to_owned(), reason };
    let write = |source| OpenError::Write { path: PathBuf::from(dir), source };
    match err {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::InUse { path: dir.to_owned() }
        }
        // redb's way to say that the file does not begin as its files do, or ends too early.
        DatabaseError::Storage(StorageError::Io(source))
            if matches!(
                source.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            corrupt(source.to_string())
        }
        DatabaseError::Storage(StorageError::Io(source)) => write(source),
        DatabaseError::Storage(StorageError::Corrupted(reason)) => corrupt(reason),
        other => corrupt(other.to_string()),
    }
}

#[cfg(unix)]
fn create_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(not(unix))]
fn create_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

/// Makes the file for this user alone; redb itself would ask for the usual mode. An existing one keeps its mode.
fn create_file(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(username: &str) -> Account {
        Account {
            id: format!("id of {username}"),
            username: username.to_owned(),
            password_hash: "$argon2id$".to_owned(),
        }
    }

    fn key(username: &str) -> UsernameKey {
        UsernameKey::new(username).unwrap()
    }

    fn secret(fill: &str) -> Secret {
        Secret::new(fill.repeat(64))
    }

    #[actix_web::test]
    async fn accounts_and_key_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = RedbStore::open(dir.path()).unwrap();
        store.create(&key("Bob"), account("Bob")).await.unwrap();
        assert_eq!(store.shared_secret(secret("a")).await.unwrap(), secret("a"));
        drop(store);

        let store = RedbStore::open(dir.path()).unwrap();
        assert_eq!(store.find(&key("bOB")).await.unwrap(), Some(account("Bob")));
        assert_eq!(store.find(&key("alice")).await.unwrap(), None);
        assert_eq!(store.shared_secret(secret("b")).await.unwrap(), secret("a"));
        assert_eq!(store.shared_secret_blocking(&secret("c")).unwrap(), secret("a"));
    }

    #[actix_web::test]
    async fn a_name_is_given_once_whatever_its_case() {
        let dir = tempfile::tempdir().unwrap();
        let store = RedbStore::open(dir.path()).unwrap();
        let (lower, upper) = (key("bob"), key("BOB"));
        let (first, second) = tokio::join!(
            store.create(&lower, account("bob")),
            store.create(&upper, account("BOB"))
        );
        assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1);
        let loser = first.and(second).unwrap_err();
        assert!(matches!(loser, StoreError::Taken), "{loser:?}");
    }

    #[cfg(unix)]
    #[test]
    fn others_on_the_machine_cannot_read_the_accounts() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        let _store = RedbStore::open(&data).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data), 0o700);
        assert_eq!(mode(&data.join(FILE_NAME)), 0o600);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let err = RedbStore::open(&file.join("data")).unwrap_err();
        assert!(matches!(err, OpenError::CreateDir { .. }), "{err:?}");
        let text = err.to_string();
        assert!(text.starts_with("DATA_DIR=") && text.contains("set DATA_DIR elsewhere"), "{text}");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named_with_the_way_out() {
        // A directory in the file's place, since permissions do not stop a test that runs as root.
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FILE_NAME)).unwrap();
        let err = RedbStore::open(dir.path()).unwrap_err();
        assert!(matches!(err, OpenError::Write { .. }), "{err:?}");
        let text = err.to_string();
        assert!(text.contains("cannot be written") && text.contains("make it writable"), "{text}");
    }

    #[test]
    fn a_second_instance_is_told_who_is_in_its_way() {
        let dir = tempfile::tempdir().unwrap();
        let _first = RedbStore::open(dir.path()).unwrap();
        let err = RedbStore::open(dir.path()).unwrap_err();
        assert!(matches!(err, OpenError::InUse { .. }), "{err:?}");
        let text = err.to_string();
        assert!(text.contains("another instance uses DATA_DIR=") && text.contains("REDIS_URL"));
    }

    #[test]
    fn a_file_that_is_no_database_is_reported_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        for content in ["hello".to_owned(), "x".repeat(100_000)] {
            fs::write(&path, &content).unwrap();
            let err = RedbStore::open(dir.path()).unwrap_err();
            assert!(matches!(err, OpenError::Corrupt { .. }), "{err:?}");
            assert!(err.to_string().contains("restore it from a backup"), "{err}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[actix_web::test]
    async fn a_damaged_file_is_reported_and_panics_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let store = RedbStore::open(dir.path()).unwrap();
        for n in 0..20 {
            let name = format!("user{n}");
            store.create(&key(&name), account(&name)).await.unwrap();
        }
        drop(store);
        let sound = fs::read(&path).unwrap();
        let mut num_refused = 0;
        // Every page of the file in turn, but for redb's header, is overwritten as a failing disk would.
        for page in 1..sound.len().div_ceil(4096) {
            let mut damaged = sound.clone();
            let end = sound.len().min((page + 1) * 4096);
            damaged[page * 4096..end].fill(0xa5);
            fs::write(&path, &damaged).unwrap();
            match RedbStore::open(dir.path()) {
                Err(OpenError::Corrupt { .. }) => num_refused += 1,
                Err(err) => panic!("page {page}: {err:?}"),
                // A page that nothing refers to.
                Ok(store) => drop(store.find(&key("user1")).await.unwrap()),
            }
        }
        assert!(num_refused > 0, "no page of the file mattered");
    }
}
