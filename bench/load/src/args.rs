//! The command line: `load WORKLOAD --name value …`.

use std::{collections::HashMap, fmt::Display, str::FromStr};

/// What was asked for.
pub(crate) struct Args {
    pub(crate) workload: String,
    values: HashMap<String, String>,
}

impl Args {
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let workload = words.next().ok_or("a workload is missing")?;
        let mut values = HashMap::new();
        while let Some(word) = words.next() {
            let name = word
                .strip_prefix("--")
                .ok_or(format!("{word}: not an option"))?;
            let value = words.next().ok_or(format!("--{name} has no value"))?;
            values.insert(name.to_owned(), value);
        }
        Ok(Self { workload, values })
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub(crate) fn get<T: FromStr<Err: Display>>(
        &self,
        name: &str,
        default: T,
    ) -> Result<T, String> {
        self.text(name).map_or(Ok(default), |text| {
            text.parse()
                .map_err(|err| format!("--{name} {text}: {err}"))
        })
    }

    /// Returns a list whose items stand between commas.
    pub(crate) fn list<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Vec<T>, String> {
        let items = self.text(name).into_iter().flat_map(|text| text.split(','));
        items
            .map(|item| {
                item.parse()
                    .map_err(|err| format!("--{name} {item}: {err}"))
            })
            .collect()
    }
}
