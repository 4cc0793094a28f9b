/// How long an app's name is at most, in bytes.
pub const MAX_APP_NAME_BYTES: usize = 63;

/// Taken by paths of the gateway.
const RESERVED: [&str; 4] = ["api", "async", "rpc", "validate"];

/// Why an app cannot be called so; `None` if it can. A name is one segment of a URL and of a path, and one label of a
/// metric.
pub fn app_name_fault(name: &str) -> Option<String> {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() {
        Some("it is empty".to_owned())
    } else if name.len() > MAX_APP_NAME_BYTES {
        Some(format!("it is longer than {MAX_APP_NAME_BYTES} characters"))
    } else if !name.starts_with(alphanumeric) {
        Some("it must begin with a lowercase letter or digit".to_owned())
    } else if !name.chars().all(|c| alphanumeric(c) || c == '-' || c == '_') {
        Some("only lowercase letters, digits, '-' and '_' are allowed".to_owned())
    } else if RESERVED.contains(&name) {
        Some("it is reserved".to_owned())
    } else {
        None
    }
}
