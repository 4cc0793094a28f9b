use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use super::*;
use crate::identity::{Identity, token::prove};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const MINUTE: Duration = Duration::from_secs(60);

struct Node {
    root: TempDir,
    identity: Identity,
    tokens: Tokens,
    now: SystemTime,
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let identity = Identity::found(&root.path().join("identity"), now).unwrap();
        let tokens = Tokens::load(&root.path().join("identity")).unwrap();
        Self { root, identity, tokens, now }
    }

    fn create(&self, options: TokenOptions) -> Token {
        self.tokens.create(self.identity.authority().unwrap(), options, self.now).unwrap()
    }

    fn reload(&self) -> Tokens {
        Tokens::load(&self.root.path().join("identity")).unwrap()
    }

    fn check(&self, token: &Token, from: IpAddr, now: SystemTime) -> Result<(), JoinRefused> {
        let proof = prove(&token.key(), &[1; 32], b"request");
        let claim = Claim { token: token.id(), exported: &[1; 32], request: b"request", proof: &proof };
        self.tokens.check(&claim, from, now)
    }

    fn guess(&self, token: TokenId, from: IpAddr) -> Result<(), JoinRefused> {
        let claim = Claim { token, exported: &[1; 32], request: b"request", proof: &[0; 32] };
        self.tokens.check(&claim, from, self.now)
    }
}

fn uses(uses: u32) -> TokenOptions {
    TokenOptions { uses: NonZeroU32::new(uses), ..TokenOptions::default() }
}

#[test]
fn token_is_for_one_use_and_ten_minutes() {
    let node = Node::new();
    let token = node.create(TokenOptions::default());
    assert_eq!(node.check(&token, HERE, node.now + 9 * MINUTE), Ok(()));
    assert_eq!(node.check(&token, HERE, node.now + 10 * MINUTE), Err(JoinRefused::Expired(token.id())));
    assert_eq!(node.tokens.take(token.id(), node.now), Ok(false));
    assert_eq!(node.check(&token, HERE, node.now), Err(JoinRefused::UsedUp(token.id())));
    assert_eq!(node.tokens.take(token.id(), node.now), Err(JoinRefused::UsedUp(token.id())));
}

#[test]
fn uses_are_counted_on_disk() {
    let node = Node::new();
    let token = node.create(uses(2));
    node.tokens.take(token.id(), node.now).unwrap();
    let reloaded = node.reload();
    assert_eq!(reloaded.list(node.now)[0].uses_left, Some(1));
    reloaded.take(token.id(), node.now).unwrap();
    assert_eq!(node.reload().take(token.id(), node.now), Err(JoinRefused::UsedUp(token.id())));
}

#[test]
fn two_that_take_the_last_use_get_one() {
    let node = Node::new();
    for _ in 0..20 {
        let token = node.create(TokenOptions::default());
        let taken = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| node.tokens.take(token.id(), node.now).is_ok()));
            threads.map(|thread| thread.join().unwrap()).into_iter().filter(|taken| *taken).count()
        });
        assert_eq!(taken, 1);
    }
}

#[test]
fn use_that_cannot_be_written_is_not_taken() {
    let node = Node::new();
    let token = node.create(TokenOptions::default());
    // A directory in the place of the temporary file, which can neither be removed nor created.
    fs::create_dir_all(node.root.path().join("identity/.tokens.json.new/in-the-way")).unwrap();
    assert!(matches!(node.tokens.take(token.id(), node.now), Err(JoinRefused::Failed(_))));
    assert_eq!(node.check(&token, HERE, node.now), Ok(()));
}

#[test]
fn unlimited_token_is_never_used_up() {
    let node = Node::new();
    let token = node.create(TokenOptions { uses: None, shares_authority: true, ..TokenOptions::default() });
    for _ in 0..5 {
        assert_eq!(node.tokens.take(token.id(), node.now), Ok(true));
    }
    assert_eq!(node.tokens.list(node.now)[0].state, TokenState::Valid);
}

#[test]
fn revoked_token_is_refused_after_a_restart() {
    let node = Node::new();
    let token = node.create(TokenOptions::default());
    assert!(node.tokens.revoke(token.id(), node.now).unwrap());
    assert!(!node.tokens.revoke(Token::new([0; 32]).unwrap().id(), node.now).unwrap());
    assert_eq!(node.check(&token, HERE, node.now), Err(JoinRefused::Revoked(token.id())));
    assert_eq!(node.reload().list(node.now)[0].state, TokenState::Revoked);
}

#[test]
fn what_is_wrong_is_only_told_to_who_has_the_token() {
    let node = Node::new();
    let token = node.create(TokenOptions::default());
    node.tokens.revoke(token.id(), node.now).unwrap();
    assert_eq!(node.guess(token.id(), HERE), Err(JoinRefused::BadProof(token.id())));
}

#[test]
fn ended_tokens_are_swept_after_a_day() {
    let node = Node::new();
    let old = node.create(TokenOptions::default());
    let later = node.now + REMEMBERED + 11 * MINUTE;
    assert!(node.tokens.list(later).is_empty());
    assert_eq!(node.check(&old, HERE, later), Err(JoinRefused::UnknownToken(old.id())));
    let new = node.tokens.create(node.identity.authority().unwrap(), TokenOptions::default(), later).unwrap();
    assert_eq!(node.reload().list(node.now).iter().map(|status| status.id).collect::<Vec<_>>(), [new.id()]);
}

#[test]
fn endless_token_is_possible() {
    let node = Node::new();
    let token = node.create(TokenOptions { expires_in: Duration::MAX, ..TokenOptions::default() });
    assert_eq!(node.check(&token, HERE, node.now + 1000 * 365 * 24 * 60 * MINUTE), Ok(()));
    assert_eq!(node.reload().list(node.now).len(), 1);
}

#[test]
fn end_that_no_clock_shows_is_damage() {
    let node = Node::new();
    node.create(TokenOptions::default());
    let directory = node.root.path().join("identity");
    let path = directory.join(files::TOKENS);
    let mut records: Vec<Record> = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    records[0].expires = u64::MAX;
    fs::write(&path, serde_json::to_string(&records).unwrap()).unwrap();
    let refused = Tokens::load(&directory).unwrap_err().to_string();
    assert!(refused.contains("tokens.json") && refused.contains("18446744073709551615 s since 1970"), "{refused}");
}

#[test]
fn guessing_is_blocked_by_address_and_by_token() {
    let node = Node::new();
    let token = node.create(TokenOptions::default());
    for _ in 0..10 {
        assert_eq!(node.tokens.check_address(HERE, node.now), Ok(()));
        assert_eq!(node.guess(token.id(), HERE), Err(JoinRefused::BadProof(token.id())));
    }
    assert_eq!(node.tokens.check_address(HERE, node.now), Err(JoinRefused::TooManyFailures));
    assert_eq!(node.tokens.check_address(ELSEWHERE, node.now), Ok(()));
    assert_eq!(node.check(&token, ELSEWHERE, node.now), Err(JoinRefused::TooManyFailures));
    assert_eq!(node.tokens.check_address(HERE, node.now + MINUTE), Ok(()));
    assert_eq!(node.check(&token, HERE, node.now + MINUTE), Ok(()));
}

#[test]
fn unknown_tokens_count_for_the_address() {
    let node = Node::new();
    for _ in 0..10 {
        let unknown = Token::new([0; 32]).unwrap().id();
        assert_eq!(node.guess(unknown, HERE), Err(JoinRefused::UnknownToken(unknown)));
    }
    assert_eq!(node.tokens.check_address(HERE, node.now), Err(JoinRefused::TooManyFailures));
}

#[test]
fn tokens_are_bounded_and_secret() {
    let node = Node::new();
    let token = node.create(TokenOptions::default());
    let path = node.root.path().join("identity").join(files::TOKENS);
    let text = fs::read_to_string(&path).unwrap();
    let (_, secret) = token.to_string().rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(!text.contains(&secret));

    let one = serde_json::from_str::<Vec<Record>>(&text).unwrap().remove(0);
    fs::write(&path, serde_json::to_string(&vec![one; MAX_TOKENS]).unwrap()).unwrap();
    let full = node.reload().create(node.identity.authority().unwrap(), TokenOptions::default(), node.now);
    assert!(matches!(full, Err(Error::TooManyTokens { limit: MAX_TOKENS })));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Tokens::load(&node.root.path().join("identity")), Err(Error::Exposed { .. })));
}
