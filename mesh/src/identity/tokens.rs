use std::{
    net::IpAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::{
    Authority, Error, Token, TokenId, files,
    join::JoinRefused,
    limit::{Failures, source},
    token::is_proof,
};

/// How many tokens a node keeps.
const MAX_TOKENS: usize = 1000;

/// How long after its end a token is remembered, so that who comes late is told why.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// What to do about a file of tokens that cannot be read.
const REMEDY: &str = "Remove the file and make new tokens";

/// What a new token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenOptions {
    /// How long it is valid. Default: 10 minutes.
    pub expires_in: Duration,
    /// How many nodes can join with it; `None` is any number. Default: 1.
    pub uses: Option<NonZeroU32>,
    /// Whether who joins with it gets the CA's key as well, and can admit and renew. Default: no.
    pub shares_authority: bool,
}

impl Default for TokenOptions {
    fn default() -> Self {
        Self { expires_in: Duration::from_secs(600), uses: Some(NonZeroU32::MIN), shares_authority: false }
    }
}

/// Whether a token can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It can.
    Valid,
    /// Its time is over.
    Expired,
    /// As many nodes have joined with it as may.
    UsedUp,
    /// Somebody revoked it.
    Revoked,
}

/// A token as its node knows it: without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenStatus {
    /// Which one.
    pub id: TokenId,
    /// Whether it can be used.
    pub state: TokenState,
    /// When it ends.
    pub expires: SystemTime,
    /// How many nodes can still join with it; `None` is any number.
    pub uses_left: Option<u32>,
    /// Whether who joins with it gets the CA's key.
    pub shares_authority: bool,
}

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    id: TokenId,
    /// SHA-256 of the secret.
    key: [u8; 32],
    /// Seconds since 1970.
    expires: u64,
    uses_left: Option<u32>,
    shares_authority: bool,
    revoked: bool,
}

impl Record {
    fn state(&self, now: SystemTime) -> TokenState {
        if self.revoked {
            TokenState::Revoked
        } else if self.uses_left == Some(0) {
            TokenState::UsedUp
        } else if self.expires() <= now {
            TokenState::Expired
        } else {
            TokenState::Valid
        }
    }

    fn usable(&self, now: SystemTime) -> Result<(), JoinRefused> {
        match self.state(now) {
            TokenState::Valid => Ok(()),
            TokenState::Expired => Err(JoinRefused::Expired(self.id)),
            TokenState::UsedUp => Err(JoinRefused::UsedUp(self.id)),
            TokenState::Revoked => Err(JoinRefused::Revoked(self.id)),
        }
    }

    fn expires(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.expires)
    }
}

/// The join tokens that this node made, kept on disk, and who failed to use one lately. Cheap to clone.
///
/// A token is known to the node that made it, and to no other. One process at a time owns the file.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    records: ArcSwap<Vec<Record>>,
    /// Held while the file is replaced.
    writing: Mutex<()>,
    failures: Mutex<(Failures<IpAddr>, Failures<TokenId>)>,
}

impl Tokens {
    /// Reads the tokens from the directory of an identity; none if there is no file. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// If the file is damaged or others can read it: it holds what proves a token.
    pub fn load(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(files::TOKENS);
        let records: Vec<Record> = match files::read_secret(&path)? {
            None => Vec::new(),
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| Error::Damaged { path: path.clone(), reason: format!("{error}. {REMEDY}") })?,
        };
        files::check_times(&path, records.iter().map(|record| record.expires), REMEDY)?;
        let records = ArcSwap::from_pointee(records);
        Ok(Self(Arc::new(Inner { path, records, writing: Mutex::default(), failures: Mutex::default() })))
    }

    /// Makes a token. It is shown now or never: only a hash of its secret is kept. Blocks on the disk.
    ///
    /// # Errors
    /// If there are too many tokens, or they cannot be written.
    pub fn create(&self, authority: &Authority, options: TokenOptions, now: SystemTime) -> Result<Token, Error> {
        let token = Token::new(authority.fingerprint())?;
        let now_seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = Record {
            id: token.id(),
            key: token.key(),
            expires: now_seconds.saturating_add(options.expires_in).as_secs().min(files::LATEST_SECONDS),
            uses_left: options.uses.map(NonZeroU32::get),
            shares_authority: options.shares_authority,
            revoked: false,
        };
        self.change(now, |records| {
            if records.len() >= MAX_TOKENS {
                return Err(Error::TooManyTokens { limit: MAX_TOKENS });
            }
            records.push(record);
            Ok(())
        })?;
        Ok(token)
    }

    /// The tokens there are, and those that ended in the last 24 hours.
    pub fn list(&self, now: SystemTime) -> Vec<TokenStatus> {
        let status = |record: &Record| TokenStatus {
            id: record.id,
            state: record.state(now),
            expires: record.expires(),
            uses_left: record.uses_left,
            shares_authority: record.shares_authority,
        };
        self.0.records.load().iter().filter(|record| is_remembered(record, now)).map(status).collect()
    }

    /// Revokes a token; whether there is such a one. Blocks on the disk.
    ///
    /// # Errors
    /// If it cannot be written; the token is valid still.
    pub fn revoke(&self, id: TokenId, now: SystemTime) -> Result<bool, Error> {
        self.change(now, |records| {
            let found = records.iter_mut().find(|record| record.id == id);
            Ok(found.map(|record| record.revoked = true).is_some())
        })
    }

    /// Whether no more proofs from this address are looked at for now.
    pub(super) fn check_address(&self, from: IpAddr, now: SystemTime) -> Result<(), JoinRefused> {
        let blocked = self.failures().0.is_blocked(source(from), now);
        if blocked { Err(JoinRefused::TooManyFailures) } else { Ok(()) }
    }

    /// Whether the asker has the token and the token can be used. What is wrong with a token is
    /// only told to who has it.
    pub(super) fn check(&self, claim: &Claim<'_>, from: IpAddr, now: SystemTime) -> Result<(), JoinRefused> {
        let Claim { token, exported, request, proof } = *claim;
        let records = self.0.records.load();
        let Some(record) = records.iter().find(|record| record.id == token && is_remembered(record, now)) else {
            self.failures().0.record(source(from), now);
            return Err(JoinRefused::UnknownToken(token));
        };
        if self.failures().1.is_blocked(token, now) {
            return Err(JoinRefused::TooManyFailures);
        }
        if !is_proof(&record.key, exported, request, proof) {
            let mut failures = self.failures();
            failures.0.record(source(from), now);
            failures.1.record(token, now);
            return Err(JoinRefused::BadProof(token));
        }
        record.usable(now)
    }

    /// Takes one use of a token, if it can still be used; whether it shares the authority. When this
    /// returns, the use is gone on disk as well. Blocks on the disk.
    pub(super) fn take(&self, id: TokenId, now: SystemTime) -> Result<bool, JoinRefused> {
        // Two layers: the disk may fail, and the token may have been used up meanwhile.
        self.change(now, |records| {
            let Some(record) = records.iter_mut().find(|record| record.id == id) else {
                return Ok(Err(JoinRefused::UnknownToken(id)));
            };
            if let Err(refused) = record.usable(now) {
                return Ok(Err(refused));
            }
            record.uses_left = record.uses_left.map(|uses| uses - 1);
            Ok(Ok(record.shares_authority))
        })
        .map_err(|error| JoinRefused::Failed(error.to_string()))?
    }

    /// Changes the records, on disk first; sweeps those that ended long ago.
    fn change<T>(
        &self,
        now: SystemTime,
        change: impl FnOnce(&mut Vec<Record>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.0.records.load_full();
        let mut records = Vec::clone(&before);
        records.retain(|record| is_remembered(record, now));
        let result = change(&mut records)?;
        if records != *before {
            let text = serde_json::to_string(&records).expect("records are JSON");
            files::replace(&self.0.path, &text)?;
            self.0.records.store(Arc::new(records));
        }
        Ok(result)
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, (Failures<IpAddr>, Failures<TokenId>)> {
        self.0.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an asker shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    pub(super) token: TokenId,
    /// What TLS exports for the connection.
    pub(super) exported: &'a [u8; 32],
    /// The certificate request.
    pub(super) request: &'a [u8],
    pub(super) proof: &'a [u8],
}

fn is_remembered(record: &Record, now: SystemTime) -> bool {
    now < record.expires() + REMEMBERED
}

#[cfg(test)]
mod tests;
