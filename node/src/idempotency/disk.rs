//! The thread that writes answers to disk: many calls share a commit, and none of their threads waits for the disk.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
};

use tokio::sync::oneshot;

use super::{
    answer::{Answer, Identity},
    index::Index,
    store::{cost, lock, warn_of_early},
    table::{Row, Table},
};

/// Answers that share a commit at most, and their bytes: a longer one would let the first of them wait for too long.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of answers that may wait to be written. More come only when the disk hangs.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// An answer that is to be stored.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: Identity,
    /// The run of the call that gave it.
    pub(super) run: u64,
    pub(super) stored_ms: u64,
    pub(super) answer: Arc<Answer>,
    /// Told when it is stored, and dropped when it cannot be.
    pub(super) stored: oneshot::Sender<()>,
}

enum Command {
    Keep(Record),
    Read { row: i64, to: oneshot::Sender<Option<Answer>> },
}

/// The thread, as others see it. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Disk {
    commands: mpsc::Sender<Command>,
    waiting_bytes: Arc<AtomicUsize>,
    has_overflowed: AtomicBool,
}

impl Disk {
    /// Starts the thread, and fills the index with what is stored below `data`.
    ///
    /// # Errors
    /// When the directory cannot be written to, or no thread be started.
    pub(super) fn start(data: &Path, index: Arc<Mutex<Index>>, now_ms: u64) -> io::Result<Self> {
        let (table, rows) = Table::open(data).map_err(io::Error::other)?;
        {
            let mut index = lock(&index);
            for Row { row, id, bytes, stored_ms } in rows {
                index.make_room(1, bytes, now_ms);
                index.keep(id, None, (row, bytes, stored_ms), None);
            }
            index.make_room(0, 0, now_ms);
        }
        let (commands, received) = mpsc::channel();
        let waiting_bytes = Arc::default();
        let waiting = Arc::clone(&waiting_bytes);
        let writer = Writer { table, data: data.to_owned(), index, waiting_bytes: waiting, is_broken: false };
        thread::Builder::new().name("fnmesh-answers".to_owned()).spawn(move || writer.run(&received))?;
        Ok(Self { commands, waiting_bytes, has_overflowed: AtomicBool::new(false) })
    }

    /// Has an answer stored, together with others.
    pub(super) fn keep(&self, record: Record) {
        let bytes = cost(&record.answer);
        if self.waiting_bytes.fetch_add(bytes, Relaxed) + bytes > MAX_WAITING_BYTES {
            self.waiting_bytes.fetch_sub(bytes, Relaxed);
            if !self.has_overflowed.swap(true, Relaxed) {
                tracing::warn!(
                    target: "fnmesh::node", limit_bytes = MAX_WAITING_BYTES,
                    "the disk is too slow for the answers of calls with an Idempotency-Key; some are not stored"
                );
            }
            return;
        }
        // It fails when the thread has panicked, which has been printed; whoever waits sees the same.
        let _ = self.commands.send(Command::Keep(record));
    }

    /// The answer in this row; `None` where it cannot be read.
    pub(super) async fn read(&self, row: i64) -> Option<Answer> {
        let (to, answer) = oneshot::channel();
        self.commands.send(Command::Read { row, to }).ok()?;
        answer.await.ok()?
    }
}

struct Writer {
    table: Table,
    data: PathBuf,
    index: Arc<Mutex<Index>>,
    waiting_bytes: Arc<AtomicUsize>,
    /// Whether the last answers could not be stored.
    is_broken: bool,
}

impl Writer {
    fn run(mut self, commands: &mpsc::Receiver<Command>) {
        while let Ok(first) = commands.recv() {
            let (mut records, mut bytes, mut next) = (Vec::new(), 0, Some(first));
            while let Some(command) = next {
                match command {
                    Command::Keep(record) => {
                        bytes += cost(&record.answer);
                        records.push(record);
                    }
                    Command::Read { row, to } => {
                        // Who asked may have gone.
                        let _ = to.send(self.read(row));
                    }
                }
                let is_full = records.len() >= BATCH || bytes >= BATCH_BYTES;
                next = if is_full { None } else { commands.try_recv().ok() };
            }
            if !records.is_empty() {
                self.write(records, super::unix_ms());
            }
            self.waiting_bytes.fetch_sub(bytes, Relaxed);
        }
    }

    fn read(&self, row: i64) -> Option<Answer> {
        self.table.read(row).unwrap_or_else(|error| {
            tracing::warn!(target: "fnmesh::node", %error, row, "a stored answer cannot be read; its call runs again");
            None
        })
    }

    fn write(&mut self, records: Vec<Record>, now_ms: u64) {
        let (first, next) = {
            let mut index = lock(&self.index);
            let bytes = records.iter().map(|record| cost(&record.answer) as u64).sum();
            if index.make_room(records.len(), bytes, now_ms) {
                warn_of_early();
            }
            (index.first_row(), index.next_row())
        };
        let rows: Vec<_> = (next..)
            .zip(&records)
            .map(|(row, Record { id, stored_ms, answer, .. })| Row {
                row,
                id: *id,
                bytes: cost(answer) as u64,
                stored_ms: *stored_ms,
            })
            .collect();
        match self.table.write(first, rows.iter().copied().zip(records.iter().map(|record| &*record.answer))) {
            Ok(()) => {
                if std::mem::take(&mut self.is_broken) {
                    tracing::info!(target: "fnmesh::node", "answers of calls with an Idempotency-Key are stored again");
                }
                let mut index = lock(&self.index);
                for (Row { row, id, bytes, stored_ms }, record) in rows.iter().zip(&records) {
                    index.keep(*id, Some(record.run), (*row, *bytes, *stored_ms), None);
                }
                drop(index);
                for record in records {
                    let _ = record.stored.send(());
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_broken, true) {
                    tracing::warn!(
                        target: "fnmesh::node", %error,
                        "answers of calls with an Idempotency-Key cannot be stored; such calls may run again until they can"
                    );
                }
                // It says itself what it did, and whether that helped shows in the next write.
                let _ = self.table.mend(&self.data, &error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fnmesh_invoke::Payload;
    use tokio::sync::watch;

    use super::*;
    use crate::idempotency::index::{Bounds, Found, Place};

    fn id(call: u8) -> Identity {
        Identity { call: [call; 16], arguments: [1; 16] }
    }

    fn begin(index: &Mutex<Index>, call: u8, now_ms: u64) -> Found {
        lock(index).begin(id(call), &watch::Sender::new(None), now_ms)
    }

    fn record(index: &Mutex<Index>, call: u8, body: &str, now_ms: u64) -> (Record, oneshot::Receiver<()>) {
        let Found::New(run) = begin(index, call, now_ms) else { panic!("call {call} is known") };
        let answer = Arc::new(Answer::Value { head: None, payload: Payload::json(body.to_owned()) });
        let (stored, told) = oneshot::channel();
        (Record { id: id(call), run, stored_ms: now_ms, answer, stored }, told)
    }

    fn writer(data: &Path) -> Writer {
        let index = Arc::new(Mutex::new(Index::new(Bounds::DISK)));
        let (table, _) = Table::open(data).unwrap();
        Writer { table, data: data.to_owned(), index, waiting_bytes: Arc::default(), is_broken: false }
    }

    #[test]
    fn stored_answers_share_a_commit_and_are_told() {
        let data = tempfile::tempdir().unwrap();
        let mut writer = writer(data.path());
        let ((one, mut first), (two, mut second)) =
            (record(&writer.index, 1, "1", 0), record(&writer.index, 2, "2", 0));
        writer.write(vec![one, two], 0);
        assert!(first.try_recv().is_ok() && second.try_recv().is_ok());
        let Found::Stored(Place::Row(row)) = begin(&writer.index, 2, 0) else { panic!("not stored") };
        let Some(Answer::Value { payload, .. }) = writer.read(row) else { panic!("no answer") };
        assert_eq!(payload, Payload::json("2"));
    }

    #[test]
    fn full_disk_leaves_calls_unstored_until_there_is_room() {
        let data = tempfile::tempdir().unwrap();
        let mut writer = writer(data.path());
        writer.table.fill();
        let large = "0".repeat(100_000);
        let (one, mut told) = record(&writer.index, 1, &large, 0);
        let run = one.run;
        writer.write(vec![one], 0);
        assert!(told.try_recv().is_err() && writer.is_broken);
        lock(&writer.index).end(id(1), run);
        assert!(matches!(begin(&writer.index, 1, 0), Found::New(_)));
        writer.table.unfill();
        let (two, mut told) = record(&writer.index, 2, &large, 0);
        writer.write(vec![two], 0);
        assert!(told.try_recv().is_ok() && !writer.is_broken);
    }

    #[test]
    fn file_that_breaks_is_replaced() {
        let data = tempfile::tempdir().unwrap();
        let mut writer = writer(data.path());
        let (one, mut first) = record(&writer.index, 1, "1", 0);
        writer.write(vec![one], 0);
        writer.table.tear();
        let ((two, mut second), (three, mut third)) =
            (record(&writer.index, 2, "2", 0), record(&writer.index, 3, "3", 0));
        writer.write(vec![two], 0);
        writer.write(vec![three], 0);
        assert_eq!([&mut first, &mut second, &mut third].map(|told| told.try_recv().is_ok()), [true, false, true]);
        let Found::Stored(Place::Row(row)) = begin(&writer.index, 1, 0) else { panic!("not known") };
        assert_eq!(writer.read(row), None);
        drop(writer);
        let (_, rows) = Table::open(data.path()).unwrap();
        assert_eq!(rows.iter().map(|it| it.id).collect::<Vec<_>>(), [id(3)]);
    }

    #[test]
    fn old_answers_are_gone_from_the_disk() {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        let data = tempfile::tempdir().unwrap();
        let mut writer = writer(data.path());
        let (one, _told) = record(&writer.index, 1, "1", 0);
        writer.write(vec![one], 0);
        let (two, _told) = record(&writer.index, 2, "2", DAY_MS);
        writer.write(vec![two], DAY_MS);
        drop(writer);
        let (_, rows) = Table::open(data.path()).unwrap();
        assert_eq!(rows.iter().map(|it| it.id).collect::<Vec<_>>(), [id(2)]);
    }

    #[test]
    fn rows_go_on_where_they_were_after_a_restart() {
        let data = tempfile::tempdir().unwrap();
        for call in 1..=3 {
            let index = Arc::new(Mutex::new(Index::new(Bounds::DISK)));
            let disk = Disk::start(data.path(), Arc::clone(&index), 0).unwrap();
            assert_eq!(lock(&index).answers(), usize::from(call) - 1);
            let (record, told) = record(&index, call, "0", super::super::unix_ms());
            disk.keep(record);
            told.blocking_recv().unwrap();
            assert_eq!(lock(&index).next_row(), i64::from(call) + 1);
        }
    }
}
