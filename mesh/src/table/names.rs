use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

/// A set of names that lies in two pieces of memory, so that a lookup waits for few of its reads: among 100,000
/// functions hardly any is in the processor's caches.
#[derive(Clone, Debug)]
pub(super) struct Names {
    text: Box<str>,
    /// Where each name begins and ends.
    spans: HashTable<(u32, u32)>,
}

impl Names {
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut text = String::new();
        let mut spans = HashTable::new();
        for name in names {
            let is_known = spans.find(hash(name), |span| at(&text, *span) == name).is_some();
            // Names beyond 4 GB could not be called.
            if !is_known && let (Ok(start), Ok(end)) = (text.len().try_into(), (text.len() + name.len()).try_into()) {
                text.push_str(name);
                spans.insert_unique(hash(name), (start, end), |span| hash(at(&text, *span)));
            }
        }
        spans.shrink_to_fit(|span| hash(at(&text, *span)));
        Self { text: text.into(), spans }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.spans.find(hash(name), |span| at(&self.text, *span) == name).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.spans.iter().map(|span| at(&self.text, *span))
    }
}

fn at(text: &str, (start, end): (u32, u32)) -> &str {
    &text[start as usize..end as usize]
}

fn hash(name: &str) -> u64 {
    FxBuildHasher.hash_one(name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn has_what_was_put_in_and_nothing_else(names: BTreeSet<String>, others: BTreeSet<String>) {
            let twice = names.iter().chain(&names).map(String::as_str);
            let set = Names::new(twice);
            prop_assert_eq!(set.len(), names.len());
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), names.iter().map(String::as_str).collect());
            for name in names.iter().chain(&others) {
                prop_assert_eq!(set.contains(name), names.contains(name));
            }
        }
    }
}
