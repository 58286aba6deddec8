//! Single values, which flags and variables of the environment may replace.

use std::path::PathBuf;

use crate::overrides::Environment;
use crate::report::Place;
use crate::table::{Context, Item, Table, join};

/// One value, from where it was said last.
pub(super) struct LastSaid {
    pub(super) key: String,
    pub(super) text: String,
    pub(super) place: Place,
}

/// A single value that flags and variables may replace.
pub(super) struct Setting<'o> {
    pub(super) name: &'static str,
    pub(super) flag: (&'static str, Option<&'o String>),
    pub(super) variable: &'static str,
    pub(super) example: &'static str,
}

impl Setting<'_> {
    /// Flag over environment over file. The file's value is checked to be text in any case.
    pub(super) fn read(
        &self,
        table: &mut Table<'_>,
        environment: &Environment,
        context: &mut Context<'_>,
    ) -> Option<LastSaid> {
        let item = table.take(self.name, context);
        self.above(&table.key, item.as_ref(), environment, context)
    }

    /// As [`Self::read`], with what the file says in a table whose name is `table`.
    pub(super) fn above(
        &self,
        table: &str,
        item: Option<&Item<'_>>,
        environment: &Environment,
        context: &mut Context<'_>,
    ) -> Option<LastSaid> {
        let key = join(table, self.name);
        let in_file = item.and_then(|item| {
            let text = item.text(context, self.example)?;
            Some((text.to_owned(), item.place(context)))
        });
        let in_flag = self.flag.1.map(|text| (text.clone(), Place::Flag(self.flag.0)));
        let in_environment = environment
            .get(self.variable)
            .map(|text| (text.to_owned(), Place::Environment(self.variable)));
        let (text, place) = in_flag.or(in_environment).or(in_file)?;
        Some(LastSaid { key, text, place })
    }
}

impl LastSaid {
    pub(super) fn error(
        &self,
        context: &mut Context<'_>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        context.error(self.place, &self.key, message, help);
    }

    pub(super) fn path(&self, context: &mut Context<'_>) -> Option<PathBuf> {
        if self.text.is_empty() {
            self.error(
                context,
                "this is empty; a folder belongs here",
                "write a path, such as \"data\"",
            );
            return None;
        }
        Some(context.source.resolve(&self.text))
    }
}
