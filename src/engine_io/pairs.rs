//! Names and values of a request, kept compact: of its query, or of its headers.
//!
//! Pure. One text and where its parts end: a session keeps them for its whole life, and two kilobytes of a query may be a thousand
//! of them. Not a map: names repeat, and a look-up is a walk.

use std::fmt;

/// Names and values, in their order. Each pair takes eight bytes beside its text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Name, value, name, value …
    text: Box<str>,
    /// Where each name and each value ends.
    ends: Box<[(u32, u32)]>,
}

impl Pairs {
    /// Returns all, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        // Within the text: it was made so.
        let part = |from: u32, to: u32| self.text.get(from as usize..to as usize);
        starts.zip(&self.ends).map(move |(start, (middle, end))| {
            let name = part(start, *middle).unwrap_or_default();
            (name, part(*middle, *end).unwrap_or_default())
        })
    }

    /// Returns how many bytes it takes.
    pub fn len_bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.ends)
    }

    /// Returns the first value of a name.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// Returns the last value of a name.
    pub fn last(&self, name: &str) -> Option<&str> {
        self.iter()
            .filter(|(key, _)| *key == name)
            .last()
            .map(|(_, value)| value)
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Pairs {
    /// The first that would end behind the fourth gibibyte, and all behind it, are left out: no request has one.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            let middle = u32::try_from(text.len() + name.len());
            let end = u32::try_from(text.len() + name.len() + value.len());
            let (Ok(middle), Ok(end)) = (middle, end) else {
                break;
            };
            text.push_str(name);
            text.push_str(value);
            ends.push((middle, end));
        }
        Self {
            text: text.into(),
            ends: ends.into(),
        }
    }
}

impl fmt::Debug for Pairs {
    /// How many there are: they hold what clients prove themselves with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pairs", self.ends.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_as_they_were_and_are_found_by_name() {
        let all = [("a", "1"), ("", ""), ("ä", "ö€"), ("a", "2"), ("b", "")];
        let pairs: Pairs = all.into_iter().collect();
        assert_eq!(pairs.iter().collect::<Vec<_>>(), all);
        assert_eq!((pairs.first("a"), pairs.last("a")), (Some("1"), Some("2")));
        assert_eq!((pairs.first("b"), pairs.first("")), (Some(""), Some("")));
        assert_eq!((pairs.first("1"), pairs.last("ab")), (None, None));
        assert_eq!(Pairs::default().iter().next(), None);
        assert_eq!(format!("{pairs:?}"), "5 pairs");
    }

    /// A bug: a thousand empty ones, two kilobytes of a request, were kept as a hundred.
    #[test]
    fn a_pair_takes_eight_bytes_beside_its_text() {
        let pairs: Pairs = (0..1000).map(|_| ("k", "")).collect();
        assert_eq!(pairs.len_bytes(), 1000 + 8000);
    }
}
