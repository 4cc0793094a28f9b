//! Answers on disk: two tables of a SQLite file, written to their ends and emptied from their beginnings.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, Error, ErrorCode, OptionalExtension as _, Result, params};

use super::answer::{Answer, Digest, Identity};

/// The version of the format is in the name: another version has another file.
const FILE: &str = "idempotency-1.db";

/// FULL: a commit is on the disk, not only on its way there, when it returns. Two tables: a node that starts reads all
/// of the small one and nothing of the large one.
const OPEN: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA journal_size_limit = 16777216;
    CREATE TABLE IF NOT EXISTS calls (
        row INTEGER PRIMARY KEY,
        call BLOB NOT NULL,
        arguments BLOB NOT NULL,
        bytes INTEGER NOT NULL,
        stored_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS answers (
        row INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        head TEXT,
        body BLOB NOT NULL
    ) STRICT;
";

/// One answer, without what it says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) row: i64,
    pub(super) id: Identity,
    pub(super) bytes: u64,
    pub(super) stored_ms: u64,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Table(Connection);

impl Table {
    /// Opens or makes the file below `data`, and reads what is in it. A broken one is put aside.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    pub(super) fn open(data: &Path) -> Result<(Self, Vec<Row>)> {
        let path = data.join(FILE);
        match Self::read_or_make(&path) {
            Err(error) if is_broken(&error) => {
                set_aside(&path, &error);
                Self::read_or_make(&path)
            }
            opened => opened,
        }
    }

    /// Begins anew, if it is the file that made a write fail.
    ///
    /// # Errors
    /// As [`Table::open`]; further writes fail, too, and it can be tried again.
    pub(super) fn mend(&mut self, data: &Path, error: &Error) -> Result<()> {
        if !is_broken(error) {
            return Ok(());
        }
        let path = data.join(FILE);
        // Closed first: that removes files by their names.
        drop(std::mem::replace(&mut self.0, Connection::open_in_memory()?));
        set_aside(&path, error);
        *self = Self::read_or_make(&path)?.0;
        Ok(())
    }

    fn read_or_make(path: &Path) -> Result<(Self, Vec<Row>)> {
        // The answers are for their callers alone. SQLite gives its other files the same mode.
        let made = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        made.map_err(|error| Error::ToSqlConversionFailure(error.into()))?;
        let table = Self(Connection::open(path)?);
        table.0.execute_batch(OPEN)?;
        let rows = table.rows()?;
        Ok((table, rows))
    }

    fn rows(&self) -> Result<Vec<Row>> {
        let mut statement = self.0.prepare("SELECT row, call, arguments, bytes, stored_ms FROM calls ORDER BY row")?;
        let rows = statement.query_map([], |it| {
            let id = Identity { call: it.get::<_, Digest>(1)?, arguments: it.get::<_, Digest>(2)? };
            Ok(Row { row: it.get(0)?, id, bytes: it.get(3)?, stored_ms: it.get(4)? })
        })?;
        rows.collect()
    }

    /// Stores these answers, and removes all rows before `first`; all of it or nothing.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub(super) fn write<'a>(&mut self, first: i64, answers: impl IntoIterator<Item = (Row, &'a Answer)>) -> Result<()> {
        let transaction = self.0.transaction()?;
        transaction.execute("DELETE FROM calls WHERE row < ?", [first])?;
        transaction.execute("DELETE FROM answers WHERE row < ?", [first])?;
        {
            let mut call = transaction.prepare("INSERT INTO calls VALUES (?, ?, ?, ?, ?)")?;
            let mut answer = transaction.prepare("INSERT INTO answers VALUES (?, ?, ?, ?)")?;
            for (Row { row, id, bytes, stored_ms }, said) in answers {
                let (kind, head, body) = said.columns();
                call.execute(params![row, id.call, id.arguments, bytes, stored_ms])?;
                answer.execute(params![row, kind, head, &body[..]])?;
            }
        }
        transaction.commit()
    }

    /// The answer in this row; `None` where there is none that can be read.
    ///
    /// # Errors
    /// When the disk or the file on it is broken.
    pub(super) fn read(&self, row: i64) -> Result<Option<Answer>> {
        let mut statement = self.0.prepare("SELECT kind, head, body FROM answers WHERE row = ?")?;
        let columns = statement.query_row([row], |it| Ok((it.get(0)?, it.get(1)?, it.get(2)?))).optional()?;
        Ok(columns.and_then(|(kind, head, body): (String, Option<String>, Vec<u8>)| {
            Answer::from_columns(&kind, head.as_deref(), body)
        }))
    }

    /// As on a disk that is full.
    #[cfg(test)]
    pub(super) fn fill(&self) {
        self.0.execute_batch("PRAGMA max_page_count = 1").unwrap();
    }

    /// As by a page that is torn.
    #[cfg(test)]
    pub(super) fn tear(&self) {
        self.0.execute_batch("DROP TABLE answers").unwrap();
    }

    /// As on a disk that has room again.
    #[cfg(test)]
    pub(super) fn unfill(&self) {
        self.0.execute_batch("PRAGMA max_page_count = 1000000").unwrap();
    }
}

/// Whether it is the file that is at fault, and not the disk, its mode or who else uses it.
fn is_broken(error: &Error) -> bool {
    match error.sqlite_error_code() {
        // `Unknown`: what the statements name is not there.
        Some(code) => matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown),
        // What is in it has other types.
        None => !matches!(error, Error::ToSqlConversionFailure(_)),
    }
}

/// Renames the file, for whoever wants to look into it.
fn set_aside(path: &Path, error: &Error) {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = with(".broken");
    // Where that fails, opening the file again fails too, and says why.
    let _ = fs::rename(path, &aside);
    for part in ["-wal", "-shm"] {
        let _ = fs::remove_file(with(part));
    }
    tracing::warn!(
        target: "fnmesh::node", %error, file = %path.display(), kept_as = %aside.display(),
        "the stored answers of calls with an Idempotency-Key cannot be read; beginning with none"
    );
}

#[cfg(test)]
mod tests {
    use fnmesh_invoke::Payload;

    use super::*;

    fn row(row: i64) -> Row {
        let id = Identity { call: [row as u8; 16], arguments: [7; 16] };
        Row { row, id, bytes: 5, stored_ms: u64::MAX / 4 }
    }

    fn answer(text: &str) -> Answer {
        Answer::Value { head: None, payload: Payload::json(text.to_owned()) }
    }

    #[test]
    fn rows_are_there_when_it_is_opened_again() {
        let data = tempfile::tempdir().unwrap();
        let (mut table, rows) = Table::open(data.path()).unwrap();
        assert!(rows.is_empty());
        let (one, two, three) = (answer("1"), answer("2"), answer("3"));
        table.write(0, [(row(1), &one), (row(2), &two)]).unwrap();
        table.write(2, [(row(3), &three)]).unwrap();
        drop(table);
        let (table, rows) = Table::open(data.path()).unwrap();
        assert_eq!(rows.iter().map(|it| it.row).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((rows[0].id, rows[0].stored_ms), (row(2).id, row(2).stored_ms));
        assert_eq!((table.read(1).unwrap(), table.read(3).unwrap()), (None, Some(three)));
    }

    #[test]
    fn torn_and_strange_files_are_put_aside() {
        for broken in [&b"SQLite format 3\0 and no more"[..], &[b'x'; 20_000]] {
            let data = tempfile::tempdir().unwrap();
            fs::write(data.path().join(FILE), broken).unwrap();
            let (mut table, rows) = Table::open(data.path()).unwrap();
            assert!(rows.is_empty());
            table.write(0, [(row(1), &answer("1"))]).unwrap();
            assert_eq!(fs::read(data.path().join("idempotency-1.db.broken")).unwrap(), broken);
        }
    }

    #[test]
    fn pages_of_rubbish_do_not_stop_it() {
        let data = tempfile::tempdir().unwrap();
        let (mut table, _) = Table::open(data.path()).unwrap();
        let answers: Vec<_> = (1..=500).map(|number| (row(number), answer(&"[0]".repeat(100)))).collect();
        table.write(0, answers.iter().map(|(row, answer)| (*row, answer))).unwrap();
        drop(table);
        let path = data.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[4096..middle].fill(0xa5);
        fs::write(&path, bytes).unwrap();
        let (_, rows) = Table::open(data.path()).unwrap();
        assert!(rows.is_empty(), "{}", rows.len());
    }

    #[test]
    fn end_that_was_not_written_is_not_there() {
        let data = tempfile::tempdir().unwrap();
        let (mut table, _) = Table::open(data.path()).unwrap();
        table.write(0, [(row(1), &answer("1"))]).unwrap();
        table.write(0, [(row(2), &answer("2"))]).unwrap();
        // As a crash leaves it: the file is copied while it is open, and its journal ends early.
        let torn = tempfile::tempdir().unwrap();
        let wal = format!("{FILE}-wal");
        fs::copy(data.path().join(FILE), torn.path().join(FILE)).unwrap();
        let journal = fs::read(data.path().join(&wal)).unwrap();
        fs::write(torn.path().join(&wal), &journal[..journal.len() - 100]).unwrap();
        let (_, rows) = Table::open(torn.path()).unwrap();
        assert_eq!(rows.iter().map(|it| it.row).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn full_disk_is_an_error_that_passes() {
        let data = tempfile::tempdir().unwrap();
        let (mut table, _) = Table::open(data.path()).unwrap();
        let large = answer(&"0".repeat(100_000));
        table.fill();
        let error = table.write(0, [(row(1), &large)]).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull));
        table.unfill();
        table.write(0, [(row(1), &large)]).unwrap();
        assert_eq!(table.read(1).unwrap(), Some(large));
    }

    #[test]
    fn directory_that_is_not_there_is_an_error() {
        assert!(Table::open(Path::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn only_its_user_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let data = tempfile::tempdir().unwrap();
        let (mut table, _) = Table::open(data.path()).unwrap();
        table.write(0, [(row(1), &answer("1"))]).unwrap();
        for entry in fs::read_dir(data.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
    }
}
