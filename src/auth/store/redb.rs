//! Accounts of a single instance: `accounts.redb` in `DATA_DIR`.
//!
//! Opened once, before anything is bound; from then on every call runs on a blocking thread, one that writes and two that
//! read: whoever waits for a slow disk waits for its turn and takes no thread, and is told after four seconds that the file is
//! unavailable. A commit is on the disk before it is answered, so that a `kill -9` or a power cut loses no account that a client was told
//! of. One process has the file open at a time.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, StorageError,
    TableDefinition,
};
use tokio::sync::Semaphore;

use super::{Account, AccountStore, BoxError, Item, StoreError, StoreKind, checked_secret};
use crate::{
    auth::{error::OpenError, rules::UsernameKey},
    config::Secret,
};

/// Name of the file in `DATA_DIR`.
pub const FILE_NAME: &str = "accounts.redb";

/// Memory for pages: an instance reads one account at a time, and redb's default is 1 GiB.
const CACHE_BYTES: usize = 4 << 20;
/// How long a caller waits, for its turn and for the disk. What it asked for goes on behind that, and keeps its turn.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// How long nothing is written behind a write that failed, or behind the opening after it; longer if to open the file takes longer.
const MIN_REST: Duration = Duration::from_secs(2);
/// Calls that may read at a time.
const NUM_LOOKING: usize = 2;
/// Key of an account → its JSON.
const ACCOUNTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("accounts");
/// Singletons by name.
const SECRETS: TableDefinition<'_, &str, &str> = TableDefinition::new("secrets");
/// Name of the token key in [`SECRETS`].
const JWT_SECRET: &str = "jwt-secret";

/// Accounts in a file.
#[derive(Clone)]
pub struct RedbStore {
    file: Arc<AccountsFile>,
    writing: Arc<Semaphore>,
    looking: Arc<Semaphore>,
    timeout: Duration,
}

struct AccountsFile {
    open: Opener,
    current: Mutex<Current>,
    /// Until when nothing is written; present from a write that failed to one that does not. Locked for a moment.
    rests_until: Mutex<Option<Instant>>,
}

struct Current {
    /// `None` after an error of the disk: redb then refuses all further work (`PreviousIo`) until the file is opened
    /// again, which the next call does. Locked on blocking threads only: never while reading or writing, but while it is opened, which
    /// takes as long as to read all of it.
    database: Option<Arc<Database>>,
    /// How long that took when it was opened last.
    opening: Duration,
}

/// Opens the file; a test puts a failing disk in its place.
type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

impl From<AccountsFile> for RedbStore {
    fn from(file: AccountsFile) -> Self {
        Self {
            file: Arc::new(file),
            writing: Arc::new(Semaphore::new(1)),
            looking: Arc::new(Semaphore::new(NUM_LOOKING)),
            timeout: ANSWER_TIMEOUT,
        }
    }
}

impl RedbStore {
    /// Opens the file in `dir`, and makes both if need be, for this user alone. Blocks; called at start.
    ///
    /// # Errors
    /// Texts that say what to do.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        create_dir(dir).map_err(|source| OpenError::CreateDir {
            path: dir.to_owned(),
            source,
        })?;
        let path = dir.join(FILE_NAME);
        create_file(&path).map_err(|source| OpenError::Write {
            path: dir.to_owned(),
            source,
        })?;
        let open = {
            let path = path.clone();
            Box::new(move || builder().create(&path))
        };
        let file = AccountsFile::open(open).map_err(|fault| match fault {
            OpenFault::Open(err) => open_error(err, dir, &path),
            OpenFault::Tables(Fault::Corrupt(source)) => OpenError::Corrupt {
                path,
                reason: source.to_string(),
            },
            OpenFault::Tables(Fault::Storage(source)) => {
                let source = io::Error::other(source.to_string());
                OpenError::Write {
                    path: dir.to_owned(),
                    source,
                }
            }
        })?;
        // The file's name must be as durable as its content. Not every file system can, and the content is not at risk.
        if let Err(err) = File::open(dir).and_then(|dir| dir.sync_all()) {
            log::debug!("{dir:?} cannot be synced: {err}");
        }
        Ok(Self::from(file))
    }

    /// Does what [`AccountStore::shared_secret`] does, on the caller's thread. Called at start.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub fn shared_secret_blocking(&self, candidate: &Secret) -> Result<Secret, StoreError> {
        let kept = self.file.read(|database| secret_or(database, candidate));
        checked_secret(&kept.map_err(|fault| fault.of(Item::Key))?)
    }

    /// Runs `work` where it may block, when one of `turns` is free. Whether that happened is open if it took too long.
    async fn blocking<T: Send + 'static>(
        &self,
        turns: &Arc<Semaphore>,
        item: Item,
        work: impl FnOnce(&AccountsFile) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let storage = |err: BoxError| Fault::Storage(err).of(item);
        let done = async {
            let turn = Arc::clone(turns).acquire_owned().await?;
            let file = Arc::clone(&self.file);
            let work = move || {
                let result = work(&file);
                // Held by the work, not by the caller: one that goes away frees no thread.
                drop(turn);
                result
            };
            Ok::<_, BoxError>(tokio::task::spawn_blocking(work).await?)
        };
        match tokio::time::timeout(self.timeout, done).await {
            Ok(Ok(result)) => result.map_err(|fault| fault.of(item)),
            Ok(Err(err)) => Err(storage(err)),
            Err(_) => {
                let text = format!("the disk has not answered within {:?}", self.timeout);
                Err(storage(text.into()))
            }
        }
    }
}

enum OpenFault {
    Open(DatabaseError),
    Tables(Fault),
}

impl Current {
    /// Returns until when nothing is to be written, if it begins now.
    fn end_of_rest(&self) -> Instant {
        Instant::now() + MIN_REST.max(self.opening)
    }
}

impl AccountsFile {
    /// Opens the file and makes the tables, so that a reader always finds them. That also proves that it can be written.
    fn open(open: Opener) -> Result<Self, OpenFault> {
        let begin = Instant::now();
        let database = open().map_err(OpenFault::Open)?;
        let opening = begin.elapsed();
        create_tables(&database).map_err(OpenFault::Tables)?;
        let current = Current {
            database: Some(Arc::new(database)),
            opening,
        };
        Ok(Self {
            open,
            current: Mutex::new(current),
            rests_until: Mutex::default(),
        })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rests_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.rests_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what writes. Not for a while behind a write that failed, on a full disk for one: that breaks the database, and all of the
    /// file is read before anybody reads an account of it again. So at most half of the time is spent with that.
    fn write<T>(&self, work: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, Fault> {
        if self
            .rests_until()
            .is_some_and(|until| Instant::now() < until)
        {
            return Err(Fault::Storage(
                "the disk refused a write a moment ago".into(),
            ));
        }
        let result = self.read(work);
        *self.rests_until() = match &result {
            Err(Fault::Storage(_)) => Some(self.current().end_of_rest()),
            Err(Fault::Corrupt(_)) | Ok(_) => None,
        };
        result
    }

    fn read<T>(&self, work: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, Fault> {
        let database = self.database()?;
        let result = work(&database);
        if matches!(result, Err(Fault::Storage(_))) {
            let mut current = self.current();
            // Unless another call has opened it again already.
            let is_current = |current: &Arc<Database>| Arc::ptr_eq(current, &database);
            if current.database.as_ref().is_some_and(is_current) {
                current.database = None;
            }
        }
        result
    }

    /// Returns the open database. Opens it again if it broke; while an earlier call still holds the broken one, that
    /// fails, and the next call tries again.
    fn database(&self) -> Result<Arc<Database>, Fault> {
        let mut current = self.current();
        if let Some(database) = &current.database {
            return Ok(Arc::clone(database));
        }
        let begin = Instant::now();
        let database = Arc::new((self.open)().map_err(|err| Fault::Storage(Box::new(err)))?);
        log::info!("[Auth] the accounts file is open again after an error of the disk");
        current.opening = begin.elapsed();
        if let Some(until) = &mut *self.rests_until() {
            *until = current.end_of_rest();
        }
        Ok(Arc::clone(current.database.insert(database)))
    }
}

fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder
        .set_cache_size(CACHE_BYTES)
        // Without it redb trusts the file, and may panic later on a damaged one.
        .set_check_integrity_on_open(true);
    builder
}

fn begin_write(database: &Database) -> Result<redb::WriteTransaction, Fault> {
    let mut transaction = database.begin_write()?;
    // The default, said aloud: a client may rely on what it was answered.
    transaction
        .set_durability(Durability::Immediate)
        .map_err(|err| Fault::Storage(Box::new(err)))?;
    Ok(transaction)
}

fn create_tables(database: &Database) -> Result<(), Fault> {
    let transaction = begin_write(database)?;
    transaction.open_table(ACCOUNTS)?;
    transaction.open_table(SECRETS)?;
    transaction.commit()?;
    Ok(())
}

/// Returns whether `key` was free.
fn insert_account(database: &Database, key: &UsernameKey, json: &[u8]) -> Result<bool, Fault> {
    let transaction = begin_write(database)?;
    let is_free = {
        let mut table = transaction.open_table(ACCOUNTS)?;
        let is_free = table.get(key.as_str())?.is_none();
        if is_free {
            table.insert(key.as_str(), json)?;
        }
        is_free
    };
    if is_free {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(is_free)
}

fn find_account(database: &Database, key: &UsernameKey) -> Result<Option<Vec<u8>>, Fault> {
    let table = database.begin_read()?.open_table(ACCOUNTS)?;
    Ok(table.get(key.as_str())?.map(|json| json.value().to_vec()))
}

/// Returns the key that is kept; keeps `candidate` if there is none.
fn secret_or(database: &Database, candidate: &Secret) -> Result<String, Fault> {
    {
        // A look first, since a write transaction waits for the others.
        let table = database.begin_read()?.open_table(SECRETS)?;
        if let Some(secret) = table.get(JWT_SECRET)? {
            return Ok(secret.value().to_owned());
        }
    }
    let transaction = begin_write(database)?;
    let kept = {
        let mut table = transaction.open_table(SECRETS)?;
        let kept = table
            .get(JWT_SECRET)?
            .map(|secret| secret.value().to_owned());
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

impl AccountStore for RedbStore {
    fn create<'a>(
        &'a self,
        key: &'a UsernameKey,
        account: Account,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let json = account.to_json()?;
            let key = key.clone();
            let insert = move |file: &AccountsFile| {
                file.write(|database| insert_account(database, &key, &json))
            };
            match self.blocking(&self.writing, Item::Account, insert).await? {
                true => Ok(()),
                false => Err(StoreError::Taken),
            }
        })
    }

    fn find<'a>(
        &'a self,
        key: &'a UsernameKey,
    ) -> BoxFuture<'a, Result<Option<Account>, StoreError>> {
        Box::pin(async move {
            let asked = key.clone();
            let json = self
                .blocking(&self.looking, Item::Account, move |file| {
                    file.read(|database| find_account(database, &asked))
                })
                .await?;
            json.map(|json| Account::from_json(&json, key)).transpose()
        })
    }

    fn shared_secret(&self, candidate: Secret) -> BoxFuture<'_, Result<Secret, StoreError>> {
        Box::pin(async move {
            let kept = self
                .blocking(&self.looking, Item::Key, move |file| {
                    file.read(|database| secret_or(database, &candidate))
                })
                .await?;
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
            Self::Storage(source) => StoreError::Unavailable {
                store: StoreKind::File,
                source,
            },
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
    let corrupt = |reason: String| OpenError::Corrupt {
        path: path.to_owned(),
        reason,
    };
    let write = |source| OpenError::Write {
        path: PathBuf::from(dir),
        source,
    };
    match err {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::InUse {
                path: dir.to_owned(),
            }
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
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
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
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use redb::{StorageBackend, backends::FileBackend};

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

    #[actix_rt::test]
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
        assert_eq!(
            store.shared_secret_blocking(&secret("c")).unwrap(),
            secret("a")
        );
    }

    #[actix_rt::test]
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

    #[actix_rt::test]
    async fn what_was_answered_is_in_the_file_without_a_clean_close() {
        let dir = tempfile::tempdir().unwrap();
        let store = RedbStore::open(dir.path()).unwrap();
        store.create(&key("bob"), account("bob")).await.unwrap();
        store.shared_secret(secret("a")).await.unwrap();
        // What a `kill -9` leaves behind: the file as it is while the database is open.
        let after = tempfile::tempdir().unwrap();
        fs::copy(dir.path().join(FILE_NAME), after.path().join(FILE_NAME)).unwrap();
        let after = RedbStore::open(after.path()).unwrap();
        assert_eq!(after.find(&key("bob")).await.unwrap(), Some(account("bob")));
        assert_eq!(after.shared_secret(secret("b")).await.unwrap(), secret("a"));
    }

    /// A disk that can run full.
    #[derive(Debug)]
    struct Disk {
        file: FileBackend,
        is_full: Arc<AtomicBool>,
    }

    impl Disk {
        fn check(&self) -> io::Result<()> {
            match self.is_full.load(Ordering::SeqCst) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.check()?;
            self.file.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.check()?;
            self.file.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.check()?;
            self.file.write(offset, data)
        }
    }

    /// Returns a store on a disk that is as full as the first says; the second counts how often the file is opened.
    fn on_disk(dir: &Path, is_full: &Arc<AtomicBool>, num_opened: &Arc<AtomicUsize>) -> RedbStore {
        let path = dir.join(FILE_NAME);
        let (is_full, num_opened) = (Arc::clone(is_full), Arc::clone(num_opened));
        let open = Box::new(move || {
            num_opened.fetch_add(1, Ordering::SeqCst);
            create_file(&path)?;
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let file = FileBackend::new(file)?;
            builder().create_with_backend(Disk {
                file,
                is_full: Arc::clone(&is_full),
            })
        });
        let Ok(file) = AccountsFile::open(open) else {
            panic!("cannot be opened")
        };
        RedbStore::from(file)
    }

    fn assert_unavailable(result: Result<(), StoreError>) {
        let store = StoreKind::File;
        let is_unavailable =
            matches!(&result, Err(StoreError::Unavailable { store: of, .. }) if *of == store);
        assert!(is_unavailable, "{result:?}");
    }

    #[actix_rt::test]
    async fn a_disk_that_was_full_serves_again_once_it_has_room() {
        let dir = tempfile::tempdir().unwrap();
        let is_full = Arc::new(AtomicBool::new(false));
        let store = on_disk(dir.path(), &is_full, &Arc::default());
        let let_it_rest = || *store.file.rests_until() = None;
        store.create(&key("alice"), account("alice")).await.unwrap();

        is_full.store(true, Ordering::SeqCst);
        for _ in 0..2 {
            assert_unavailable(store.create(&key("bob"), account("bob")).await);
            let_it_rest();
        }

        is_full.store(false, Ordering::SeqCst);
        assert_eq!(
            store.find(&key("alice")).await.unwrap(),
            Some(account("alice"))
        );
        store.create(&key("bob"), account("bob")).await.unwrap();
        assert_eq!(store.find(&key("bob")).await.unwrap(), Some(account("bob")));
    }

    /// A bug: with a full disk all of the file was read for each who wanted to register, and nobody could log in meanwhile.
    #[actix_rt::test]
    async fn behind_a_write_that_failed_the_file_is_left_alone_for_as_long_as_to_open_it_takes() {
        let dir = tempfile::tempdir().unwrap();
        let (is_full, num_opened) = (Arc::default(), Arc::default());
        let store = on_disk(dir.path(), &is_full, &num_opened);
        store.create(&key("alice"), account("alice")).await.unwrap();
        let begin = Instant::now();
        is_full.store(true, Ordering::SeqCst);
        assert_unavailable(store.create(&key("bob"), account("bob")).await);
        is_full.store(false, Ordering::SeqCst);
        for _ in 0..3 {
            let before = num_opened.load(Ordering::SeqCst);
            assert_unavailable(store.create(&key("bob"), account("bob")).await);
            assert_eq!(num_opened.load(Ordering::SeqCst), before);
            let found = store.find(&key("alice")).await.unwrap();
            assert_eq!(found, Some(account("alice")), "others read");
        }
        assert_eq!(num_opened.load(Ordering::SeqCst), 2);
        let rests_for = || store.file.rests_until().unwrap() - begin;
        assert!(rests_for() >= MIN_REST);
        // One that takes long to be opened rests for as long.
        *store.file.rests_until() = None;
        store.file.current().opening = 10 * MIN_REST;
        is_full.store(true, Ordering::SeqCst);
        assert_unavailable(store.create(&key("bob"), account("bob")).await);
        assert!(rests_for() >= 10 * MIN_REST);
        // From its opening on, which may have taken all of that.
        *store.file.rests_until() = Some(begin);
        is_full.store(false, Ordering::SeqCst);
        store.find(&key("alice")).await.unwrap();
        assert!(rests_for() >= MIN_REST);
        *store.file.rests_until() = Some(begin);
        store.create(&key("bob"), account("bob")).await.unwrap();
        assert!(store.file.rests_until().is_none());
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
        let Err(err) = RedbStore::open(&file.join("data")) else {
            panic!("opened")
        };
        assert!(matches!(err, OpenError::CreateDir { .. }), "{err:?}");
        let text = err.to_string();
        assert!(
            text.starts_with("DATA_DIR=") && text.contains("set DATA_DIR elsewhere"),
            "{text}"
        );
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named_with_the_way_out() {
        // A directory in the file's place, since permissions do not stop a test that runs as root.
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FILE_NAME)).unwrap();
        let Err(err) = RedbStore::open(dir.path()) else {
            panic!("opened")
        };
        assert!(matches!(err, OpenError::Write { .. }), "{err:?}");
        let text = err.to_string();
        assert!(
            text.contains("cannot be written") && text.contains("make it writable"),
            "{text}"
        );
    }

    #[test]
    fn a_second_instance_is_told_who_is_in_its_way() {
        let dir = tempfile::tempdir().unwrap();
        let _first = RedbStore::open(dir.path()).unwrap();
        let Err(err) = RedbStore::open(dir.path()) else {
            panic!("opened")
        };
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
            let Err(err) = RedbStore::open(dir.path()) else {
                panic!("opened")
            };
            assert!(matches!(err, OpenError::Corrupt { .. }), "{err:?}");
            assert!(
                err.to_string().contains("restore it from a backup"),
                "{err}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    /// A bug: each call that waited for the disk kept a thread, though its caller had gone.
    #[actix_rt::test]
    async fn who_waits_for_the_disk_keeps_no_thread_and_nobody_from_reading() {
        let dir = tempfile::tempdir().unwrap();
        let store = RedbStore::open(dir.path()).unwrap();
        store.create(&key("alice"), account("alice")).await.unwrap();
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let (began, has_begun) = tokio::sync::oneshot::channel();
        let slow = actix_rt::spawn({
            let store = store.clone();
            async move {
                let work = move |_: &AccountsFile| {
                    began.send(()).unwrap();
                    gate.recv().unwrap();
                    Ok(())
                };
                store.blocking(&store.writing, Item::Account, work).await
            }
        });
        has_begun.await.unwrap();
        let bob = key("bob");
        let mut second = store.create(&bob, account("bob"));
        assert!((&mut second).now_or_never().is_none());
        drop(second);
        assert!(store.find(&key("alice")).await.unwrap().is_some());
        release.send(()).unwrap();
        slow.await.unwrap().unwrap();
        assert!(store.find(&key("bob")).await.unwrap().is_none());
        store.create(&key("bob"), account("bob")).await.unwrap();
    }

    /// A bug: with a disk that hung, everybody waited for ever.
    #[actix_rt::test]
    async fn a_disk_that_hangs_is_unavailable_and_keeps_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = RedbStore::open(dir.path()).unwrap();
        store.timeout = Duration::from_millis(20);
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let hangs = move |_: &AccountsFile| {
            _ = gate.recv();
            Ok(())
        };
        assert_unavailable(store.blocking(&store.writing, Item::Account, hangs).await);
        assert_eq!(store.writing.available_permits(), 0);
        let bob = key("bob");
        assert_unavailable(store.create(&bob, account("bob")).await);
        store.timeout = ANSWER_TIMEOUT;
        assert_eq!(store.find(&bob).await.unwrap(), None, "others read");
        drop(release);
        store.create(&bob, account("bob")).await.unwrap();
    }

    #[actix_rt::test]
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
