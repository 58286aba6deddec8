//! What the Containerfile says.

use std::fs;

use crate::place::repository;

/// An instruction, and what follows it.
pub(super) type Instruction = (String, String);

/// An image that is built in two stages.
pub(super) struct Image {
    /// The stage that compiles.
    pub(super) build: Vec<Instruction>,
    /// The image itself.
    pub(super) last: Vec<Instruction>,
}

impl Image {
    pub(super) fn read() -> Self {
        let file = repository().join("host/packaging/Containerfile");
        let text = fs::read_to_string(file).unwrap().replace("\\\n", " ");
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut stages: Vec<Vec<Instruction>> = Vec::new();
        for line in lines {
            let (word, rest) = line.split_once(' ').unwrap();
            if word == "FROM" {
                stages.push(Vec::new());
            }
            stages.last_mut().unwrap().push((word.to_owned(), rest.trim().to_owned()));
        }
        let [build, last] = <[_; 2]>::try_from(stages).unwrap();
        Self { build, last }
    }

    /// What follows the only instruction of this word in the image itself.
    pub(super) fn only(&self, word: &str) -> &str {
        let all = all(&self.last, word);
        assert_eq!(all.len(), 1, "{word}: {all:?}");
        all[0]
    }

    /// The words of an instruction that has them as a list.
    pub(super) fn list(&self, word: &str) -> Vec<String> {
        serde_json::from_str(self.only(word)).unwrap()
    }

    /// The numbers of the user and the group.
    pub(super) fn user(&self) -> (u32, u32) {
        numbers(self.only("USER"))
    }

    pub(super) fn port(&self) -> u16 {
        self.only("EXPOSE").parse().unwrap()
    }

    /// The only folder that is kept.
    pub(super) fn volume(&self) -> String {
        let volumes = self.list("VOLUME");
        assert_eq!(volumes.len(), 1, "{volumes:?}");
        volumes[0].clone()
    }
}

/// What follows each instruction of this word.
pub(super) fn all<'a>(stage: &'a [Instruction], word: &str) -> Vec<&'a str> {
    stage.iter().filter(|(found, _)| found == word).map(|(_, rest)| rest.as_str()).collect()
}

/// `USER:GROUP`, in numbers.
pub(super) fn numbers(text: &str) -> (u32, u32) {
    let (user, group) = text.split_once(':').unwrap();
    (user.parse().unwrap(), group.parse().unwrap())
}
