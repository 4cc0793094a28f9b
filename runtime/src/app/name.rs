//! What an app may be called: one segment of a URL, one label of a metric.

use std::path::{Component, Path};

use fnmesh_invoke::{MAX_APP_NAME_BYTES, app_name_fault};

use super::AppError;

/// A name somebody chose: taken as it is or refused.
pub(super) fn check(name: &str) -> Result<String, AppError> {
    match app_name_fault(name) {
        None => Ok(name.to_owned()),
        Some(reason) => {
            let is_fit = |name: &String| app_name_fault(name).is_none();
            let suggestion = normalize(name).map(|name| if is_fit(&name) { name } else { name + "-app" });
            Err(AppError::Name { name: name.to_owned(), reason, suggestion })
        }
    }
}

/// The directory's name made fit. `given` counts, not what it links to: `shop -> releases/42` is `shop`.
pub(super) fn of_directory(given: &Path, canonical: &Path) -> Result<String, AppError> {
    let last = |path: &Path| match path.components().next_back() {
        Some(Component::Normal(name)) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    };
    let name = last(given).or_else(|| last(canonical)).unwrap_or_default();
    check(&normalize(&name).unwrap_or(name))
}

/// `My Shop!` to `my-shop`; `None` where nothing is left.
fn normalize(name: &str) -> Option<String> {
    let mut normal = String::with_capacity(name.len());
    for character in name.chars().map(|c| c.to_ascii_lowercase()) {
        match character {
            'a'..='z' | '0'..='9' => normal.push(character),
            '_' | '-' if !normal.is_empty() => normal.push(character),
            _ if !normal.is_empty() && !normal.ends_with('-') => normal.push('-'),
            _ => {}
        }
    }
    normal.truncate(MAX_APP_NAME_BYTES);
    normal.truncate(normal.trim_end_matches('-').len());
    (!normal.is_empty()).then_some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_name_is_taken_as_it_is() {
        for name in ["a", "shop", "my-shop_2", "9lives", &"x".repeat(63)] {
            assert_eq!(check(name).unwrap(), name);
        }
    }

    #[test]
    fn chosen_name_that_breaks_a_rule_is_refused() {
        for (name, reason, suggestion) in [
            ("", "it is empty", None),
            (&*"x".repeat(64), "it is longer than 63 characters", Some("x".repeat(63))),
            ("_shop", "it must begin with a lowercase letter or digit", Some("shop".into())),
            ("My Shop!", "it must begin with a lowercase letter or digit", Some("my-shop".into())),
            ("shop.v2", "only lowercase letters, digits, '-' and '_' are allowed", Some("shop-v2".into())),
            ("a/b", "only lowercase letters, digits, '-' and '_' are allowed", Some("a-b".into())),
            ("rpc", "it is reserved", Some("rpc-app".into())),
            ("日本", "it must begin with a lowercase letter or digit", None),
        ] {
            let Err(AppError::Name { reason: got, suggestion: suggested, .. }) = check(name) else { panic!("{name}") };
            assert_eq!((got.as_str(), suggested), (reason, suggestion), "{name}");
        }
    }

    #[test]
    fn every_suggestion_would_be_taken() {
        for name in ["_", "-a-", "API", "async", "Ünï cödé", "a--b", &"é".repeat(99), &"a!".repeat(99)] {
            if let Err(AppError::Name { suggestion: Some(suggestion), .. }) = check(name) {
                assert_eq!(check(&suggestion).unwrap(), suggestion);
            }
        }
    }

    #[test]
    fn directory_name_is_made_fit() {
        let of = |given: &str| of_directory(Path::new(given), Path::new("/srv/Real Name"));
        assert_eq!(of("/srv/My Shop").unwrap(), "my-shop");
        assert_eq!(of("shop/").unwrap(), "shop");
        assert_eq!(of(".").unwrap(), "real-name");
        assert_eq!(of("shop/..").unwrap(), "real-name");
        assert_eq!(of("__shop").unwrap(), "shop");
        assert!(matches!(of("/srv/api"), Err(AppError::Name { suggestion: Some(name), .. }) if name == "api-app"));
        assert!(matches!(of("/srv/日本"), Err(AppError::Name { name, suggestion: None, .. }) if name == "日本"));
    }
}
