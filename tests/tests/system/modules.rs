//! The files of a crate form no circle, and the builders' page names files that exist.
//!
//! A file is a module. It points to another one when its text names an item that is defined there;
//! re-exports are followed to the file that defines the item. `mod x;` and `pub use` alone are no arrow,
//! and tests do not count. What is called as a method names no item.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens as _;
use regex::Regex;
use syn::visit::Visit;
use syn::{Attribute, Item, ItemUse, UseTree, Visibility};

use crate::place::repository;

/// The path of a module in its crate: empty for the crate itself.
type Module = Vec<String>;

/// Which files point to which, and by what they name.
type Arrows = BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>>;

/// A file: the paths that it names, and what it re-exports by which name.
#[derive(Default)]
struct Source {
    named: Vec<Vec<String>>,
    /// How many modules of this file are around what is being read.
    depth: usize,
    exported: BTreeMap<String, Vec<String>>,
    /// The types, constants and functions that it names without a path.
    used: BTreeSet<String>,
}

impl Source {
    fn read(text: &str) -> Self {
        let mut source = Self::default();
        source.visit_file(&syn::parse_file(text).unwrap());
        // What a file re-exports, it may name as well.
        let used = source.exported.iter().filter(|(name, _)| source.used.contains(*name));
        let named: Vec<_> = used.map(|(_, path)| path.clone()).collect();
        source.named.extend(named);
        source
    }

    /// Takes in a path, unless it is a single name. To a module of this file, `super` is this file.
    fn name(&mut self, mut path: Vec<String>) {
        if path.len() < 2 {
            return;
        }
        let inside = path.iter().take(self.depth).take_while(|name| *name == "super").count();
        path.splice(..inside, (inside > 0).then(|| "self".to_owned()));
        self.named.push(path);
    }

    /// Paths in code: names with `::` between them.
    fn name_paths(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        let tokens: Vec<_> = tokens.into_iter().collect();
        self.use_names(&tokens);
        for token in tokens {
            let (name, inner) = match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(name) => (Some(name.to_string()), None),
                TokenTree::Group(group) => (None, Some(group.stream())),
                TokenTree::Punct(_) | TokenTree::Literal(_) => (None, None),
            };
            if colons != 2 || name.is_none() {
                let ended = std::mem::take(&mut path);
                self.name(ended);
            }
            path.extend(name);
            colons = 0;
            if let Some(inner) = inner {
                self.name_paths(inner);
            }
        }
        self.name(path);
    }
}

fn is_of_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|one| {
        let text = one.to_token_stream().to_string().replace(' ', "");
        text == "#[cfg(test)]" || text == "#[test]"
    })
}

impl Source {
    /// Names without a path that can only be an item: types, constants, and functions that are called.
    fn use_names(&mut self, tokens: &[TokenTree]) {
        for (index, token) in tokens.iter().enumerate() {
            let TokenTree::Ident(name) = token else { continue };
            let name = name.to_string();
            let before = index.checked_sub(1).map_or_else(String::new, |it| tokens[it].to_string());
            let is_called = matches!(tokens.get(index + 1), Some(TokenTree::Group(group))
                if group.delimiter() == Delimiter::Parenthesis);
            let is_item = name.starts_with(|it: char| it.is_ascii_uppercase());
            let is_of_path = before == ":" && index > 1 && tokens[index - 2].to_string() == ":";
            if !is_of_path && (is_item || is_called && before != "." && before != "fn") {
                self.used.insert(name);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Source {
    fn visit_item(&mut self, item: &'ast Item) {
        if let Item::Use(import) = item {
            self.visit_item_use(import);
        } else if let Item::Mod(module) = item {
            if !is_of_tests(&module.attrs) {
                self.depth += 1;
                syn::visit::visit_item_mod(self, module);
                self.depth -= 1;
            }
        } else if !matches!(item, Item::Fn(function) if is_of_tests(&function.attrs)) {
            self.name_paths(item.to_token_stream());
            // Imports in functions.
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, import: &'ast ItemUse) {
        if is_of_tests(&import.attrs) {
            return;
        }
        let mut paths = Vec::new();
        leaves(&import.tree, &mut Vec::new(), &mut paths);
        for (path, name) in paths {
            if matches!(import.vis, Visibility::Inherited) {
                self.name(path);
            } else {
                self.exported.insert(name, path);
            }
        }
    }
}

/// Each path of an import, and the name by which the file has it.
fn leaves(tree: &UseTree, above: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
    let with = |name: &str| above.iter().cloned().chain([name.to_owned()]).collect::<Vec<_>>();
    match tree {
        UseTree::Path(path) => {
            above.push(path.ident.to_string());
            leaves(&path.tree, above, found);
            above.pop();
        }
        UseTree::Name(name) if name.ident == "self" => {
            found.push((above.clone(), above.last().cloned().unwrap_or_default()));
        }
        UseTree::Name(name) => {
            found.push((with(&name.ident.to_string()), name.ident.to_string()));
        }
        UseTree::Rename(rename) => {
            found.push((with(&rename.ident.to_string()), rename.rename.to_string()));
        }
        UseTree::Glob(_) => found.push((with("*"), "*".to_owned())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, above, found)),
    }
}

/// The modules of a crate by their paths.
fn sources(folder: &Path, above: &Module, found: &mut BTreeMap<Module, Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let module = || above.iter().cloned().chain([stem.to_owned()]).collect::<Module>();
        if path.is_dir() {
            sources(&path, &module(), found);
        } else if path.extension().is_some_and(|it| it == "rs") && stem != "main" {
            let module = if above.is_empty() && stem == "lib" { Module::new() } else { module() };
            found.insert(module, Source::read(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// A path as the crate sees it; none for what is of another crate.
fn absolute(from: &Module, path: &[String], all: &BTreeMap<Module, Source>) -> Option<Module> {
    let mut rest = path;
    let mut base = match rest.first()?.as_str() {
        "crate" => Module::new(),
        "self" | "super" => from.clone(),
        child => {
            let module: Module = from.iter().cloned().chain([child.to_owned()]).collect();
            return all.contains_key(&module).then(|| from.iter().chain(path).cloned().collect());
        }
    };
    while let Some("crate" | "self" | "super") = rest.first().map(String::as_str) {
        if rest[0] == "super" {
            base.pop();
        }
        rest = &rest[1..];
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

/// The file that defines what a path names, and the name in it; none when it names a module only.
fn defined_in(path: &Module, all: &BTreeMap<Module, Source>) -> Option<(Module, String)> {
    let length = (0..=path.len()).rev().find(|length| all.contains_key(&path[..*length]))?;
    let (module, item) = (path[..length].to_vec(), path.get(length)?);
    let Some(exported) = all[&module].exported.get(item) else {
        return Some((module, item.clone()));
    };
    let exported = absolute(&module, exported, all)?;
    let whole: Module = exported.into_iter().chain(path[length + 1..].iter().cloned()).collect();
    defined_in(&whole, all)
}

fn arrows(all: &BTreeMap<Module, Source>) -> Arrows {
    let mut arrows = Arrows::new();
    for (from, source) in all {
        for path in &source.named {
            let to = absolute(from, path, all).and_then(|path| defined_in(&path, all));
            if let Some((to, item)) = to.filter(|(to, _)| to != from) {
                arrows.entry(from.clone()).or_default().entry(to).or_default().insert(item);
            }
        }
    }
    arrows
}

/// The modules that can be reached from one.
fn reached(from: &Module, arrows: &Arrows) -> BTreeSet<Module> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from.clone()]);
    while let Some(module) = open.pop() {
        for to in arrows.get(&module).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(to.clone()) {
                open.push(to.clone());
            }
        }
    }
    reached
}

/// The arrows of all circles, in words.
fn circles(all: &BTreeMap<Module, Source>) -> Vec<String> {
    let arrows = arrows(all);
    let reached: BTreeMap<_, _> =
        all.keys().map(|module| (module, reached(module, &arrows))).collect();
    let mut found = Vec::new();
    for (from, targets) in &arrows {
        for (to, items) in targets.iter().filter(|(to, _)| reached[to].contains(from)) {
            let items: Vec<_> = items.iter().map(String::as_str).collect();
            let name = |module: &Module| format!("crate::{}", module.join("::"));
            found.push(format!("{} -> {}: {}", name(from), name(to), items.join(", ")));
        }
    }
    found
}

#[test]
fn the_files_of_a_crate_form_no_circle() {
    let (mut crates, mut found) = (0, Vec::new());
    for entry in fs::read_dir(repository().join("host")).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("Cargo.toml").exists() {
            continue;
        }
        let mut all = BTreeMap::new();
        sources(&folder.join("src"), &Module::new(), &mut all);
        let name = folder.file_name().unwrap().to_str().unwrap();
        found.extend(circles(&all).into_iter().map(|arrow| format!("{name}: {arrow}")));
        crates += 1;
    }
    assert!(found.is_empty(), "arrows of circles:\n{}", found.join("\n"));
    assert!(crates >= 8, "the crates were not found");
}

/// The paths in the repository of all files below a folder, but for what is built there.
fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let path = path.strip_prefix(repository()).unwrap();
            found.push(path.to_str().unwrap().to_owned());
        } else if !["target", "node_modules"].iter().any(|it| path.ends_with(it)) {
            files(&path, found);
        }
    }
}

/// Whether the builders' page may call one of these files so: by its path in `host` or in the repository,
/// or in the section of a crate (or of `tests`) by the end of its path.
fn is_named(name: &str, section: &str, there: &[String]) -> bool {
    let folders: Vec<_> = section.split(", ").flat_map(|it| it.split(" and ")).collect();
    there.iter().any(|path| {
        let in_host = path.strip_prefix("host/");
        let belongs = folders.iter().any(|folder| {
            let rest = in_host.unwrap_or(path).strip_prefix(folder);
            rest.is_some_and(|rest| rest.starts_with('/'))
        });
        path == name || in_host == Some(name) || belongs && path.ends_with(&format!("/{name}"))
    })
}

#[test]
fn the_files_that_the_builders_page_names_exist() {
    let page = fs::read_to_string(repository().join("host/ARCHITECTURE.md")).unwrap();
    let mut there = Vec::new();
    for folder in ["host", "plugins", "tests", "wit"] {
        files(&repository().join(folder), &mut there);
    }
    let name = Regex::new(r"`([\w./-]+\.(?:rs|c|js|py|wit))`").unwrap();
    let (mut named, mut missing) = (0, Vec::new());
    for section in page.split("\n## ") {
        let heading = section.lines().next().unwrap_or_default();
        for name in name.captures_iter(section) {
            named += 1;
            if !is_named(&name[1], heading, &there) {
                missing.push(format!("{heading}: {}", &name[1]));
            }
        }
    }
    assert!(named > 100, "the page was not read");
    assert!(missing.is_empty(), "host/ARCHITECTURE.md names files that are not there: {missing:?}");
}

#[test]
fn a_file_is_named_by_its_path_or_in_the_section_of_its_crate() {
    let there = ["host/engine/src/fit.rs", "tests/tests/system/door.rs"].map(str::to_owned);
    assert!(is_named("engine/src/fit.rs", "Invariants", &there));
    assert!(is_named("fit.rs", "store, engine and cli", &there));
    assert!(is_named("door.rs", "tests", &there));
    assert!(!is_named("engine/fit.rs", "engine", &there), "the path lacks `src`");
    assert!(!is_named("fit.rs", "Invariants", &there), "nothing says in which crate");
    assert!(!is_named("it.rs", "engine", &there));
}

#[test]
fn a_circle_is_found_through_imports_paths_and_re_exports() {
    let circles_of = |files: &[(&str, &str)]| {
        let mut all = BTreeMap::new();
        for (name, text) in files {
            let module = name.split("::").filter(|it| !it.is_empty()).map(str::to_owned);
            all.insert(module.collect(), Source::read(text));
        }
        circles(&all)
    };
    let list = ("", "mod a; mod b; pub use a::A;");
    let import =
        [list, ("a", "use crate::b::B; pub struct A(B);"), ("b", "use crate::A; pub struct B;")];
    assert_eq!(circles_of(&import), ["crate::a -> crate::b: B", "crate::b -> crate::a: A"]);
    let path = [list, ("a", "pub fn a() { vec![crate::b::b()]; }"), ("b", "fn b() { super::A; }")];
    assert_eq!(circles_of(&path), ["crate::a -> crate::b: b", "crate::b -> crate::a: A"]);
    let child = [("", "mod a;"), ("a", "mod c; fn a() { c::c() }"), ("a::c", "use super::a;")];
    assert_eq!(circles_of(&child), ["crate::a -> crate::a::c: c", "crate::a::c -> crate::a: a"]);
    let own = [
        ("", "mod a;"),
        ("a", "mod c; pub use c::C; fn a() { C::new() }"),
        ("a::c", "use super::a;"),
    ];
    assert_eq!(circles_of(&own), ["crate::a -> crate::a::c: C", "crate::a::c -> crate::a: a"]);
    let none = [
        list,
        ("a", "use crate::b::B; pub struct A(B); #[cfg(test)] mod tests { use super::*; }"),
        ("b", "pub struct B; #[cfg(test)] mod tests { use crate::A; }"),
    ];
    assert_eq!(circles_of(&none), Vec::<String>::new());
}
