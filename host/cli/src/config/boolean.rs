//! Whether a CEL expression can be true or false at all.
//!
//! Looks at the text of an expression that the engine has read already, and knows CEL's operators
//! (<https://github.com/google/cel-spec>, "Syntax") and the functions whose results are of one
//! type. Deliberately absent: the types of variables, which nobody knows before a saga runs.

/// What an expression certainly gives, when that is neither true nor false: `a number`. None when
/// it may be one of them.
pub(super) fn never_boolean(source: &str) -> Option<&'static str> {
    never(&tokens(source))
}

/// Whether the expression is the word `false`, in any number of brackets.
pub(super) fn is_false(source: &str) -> bool {
    *within_brackets(&tokens(source)) == [Token::Word("false")]
}

/// As far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'s> {
    Number,
    Text,
    Word(&'s str),
    Sign(&'s str),
}

/// Functions and methods that give what is no boolean, and what it is.
const GIVES: [(&str, &str); 11] = [
    ("bytes", "bytes"),
    ("double", "a number"),
    ("duration", "a duration"),
    ("filter", "a list"),
    ("int", "a number"),
    ("map", "a list"),
    ("size", "a number"),
    ("string", "text"),
    ("timestamp", "a time"),
    ("type", "a type"),
    ("uint", "a number"),
];

fn tokens(source: &str) -> Vec<Token<'_>> {
    const LONG: [&str; 6] = ["&&", "||", "==", "!=", "<=", ">="];
    let mut tokens = Vec::new();
    let mut rest = source.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(length) = text_length(rest) {
            tokens.push(Token::Text);
            length
        } else if first.is_ascii_digit() {
            tokens.push(Token::Number);
            // A dot within it as well; a sign in an exponent only splits it in two numbers.
            rest.find(|c: char| !word(c) && c != '.').unwrap_or(rest.len())
        } else if word(first) {
            let length = rest.find(|c| !word(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(&rest[..length]));
            length
        } else {
            let long = LONG.iter().find(|sign| rest.starts_with(**sign));
            let length = long.map_or(first.len_utf8(), |sign| sign.len());
            tokens.push(Token::Sign(&rest[..length]));
            length
        };
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The length of the text literal at the start, if there is one: with `r` and `b` before it, and
/// between one or three of either quote.
fn text_length(rest: &str) -> Option<usize> {
    let prefix = rest.len() - rest.trim_start_matches(['r', 'R', 'b', 'B']).len();
    let (is_raw, quoted) = (rest[..prefix].contains(['r', 'R']), &rest[prefix..]);
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| quoted.starts_with(*quote));
    let quote = quote.filter(|_| prefix <= 2)?;
    let mut at = quote.len();
    while at < quoted.len() && !quoted[at..].starts_with(quote) {
        let escapes = !is_raw && quoted[at..].starts_with('\\');
        let mut next = quoted[at..].chars().map(char::len_utf8);
        at += next.next().unwrap_or(1) + if escapes { next.next().unwrap_or(0) } else { 0 };
    }
    Some((prefix + at + quote.len()).min(rest.len()))
}

/// What stands in the brackets around all of it, if there are any.
fn within_brackets<'t, 's>(mut tokens: &'t [Token<'s>]) -> &'t [Token<'s>] {
    while let [Token::Sign("("), inner @ .., Token::Sign(")")] = tokens
        && closes_at_end(tokens)
    {
        tokens = inner;
    }
    tokens
}

/// Whether the bracket at the start is closed by the last token.
fn closes_at_end(tokens: &[Token<'_>]) -> bool {
    let closed = depths(tokens).position(|(depth, token)| depth == 0 && is_closing(token));
    closed.is_some_and(|at| at + 1 == tokens.len())
}

/// Each token with how many brackets are open after it.
fn depths<'t, 's>(tokens: &'t [Token<'s>]) -> impl Iterator<Item = (usize, Token<'s>)> + 't {
    tokens.iter().scan(0_usize, |depth, token| {
        match token {
            Token::Sign("(" | "[" | "{") => *depth += 1,
            token if is_closing(*token) => *depth = depth.saturating_sub(1),
            Token::Number | Token::Text | Token::Word(_) | Token::Sign(_) => {}
        }
        Some((*depth, *token))
    })
}

fn is_closing(token: Token<'_>) -> bool {
    matches!(token, Token::Sign(")" | "]" | "}"))
}

fn never(tokens: &[Token<'_>]) -> Option<&'static str> {
    let tokens = within_brackets(tokens);
    let outer: Vec<(usize, Token<'_>)> = depths(tokens)
        .enumerate()
        .filter(|(_, (depth, token))| *depth == 0 && !is_closing(*token))
        .map(|(at, (_, token))| (at, token))
        .collect();
    let has = |wanted: &[&str]| {
        outer.iter().any(|(_, token)| {
            matches!(token, Token::Sign(text) | Token::Word(text) if wanted.contains(text))
        })
    };
    if let Some((question, _)) = outer.iter().find(|(_, token)| *token == Token::Sign("?")) {
        return never_either(tokens, *question, &outer);
    }
    if has(&["&&", "||", "==", "!=", "<", "<=", ">", ">=", "in"]) {
        return None;
    }
    let is_operand = |token: Token<'_>| {
        matches!(token, Token::Number | Token::Text | Token::Word(_)) || is_closing(token)
    };
    let is_sum = outer.iter().any(|(at, token)| {
        matches!(token, Token::Sign("+" | "-" | "*" | "/" | "%"))
            && at.checked_sub(1).is_some_and(|before| is_operand(tokens[before]))
    });
    if is_sum {
        return Some("the result of a calculation");
    }
    match tokens {
        [Token::Sign("-"), ..] | [Token::Number] => Some("a number"),
        [Token::Text] => Some("text"),
        [Token::Word("null")] => Some("null"),
        [Token::Sign("["), ..] if closes_at_end(tokens) => Some("a list"),
        [Token::Sign("{"), ..] if closes_at_end(tokens) => Some("a map"),
        [.., Token::Sign(")")] => call_gives(tokens),
        _ => None,
    }
}

/// Of `c ? a : b`: it is never a boolean when neither `a` nor `b` is.
fn never_either(
    tokens: &[Token<'_>],
    question: usize,
    outer: &[(usize, Token<'_>)],
) -> Option<&'static str> {
    let mut open = 0;
    let colon = outer.iter().filter(|(at, _)| *at > question).find(|(_, token)| {
        match token {
            Token::Sign("?") => open += 1,
            Token::Sign(":") if open == 0 => return true,
            Token::Sign(":") => open -= 1,
            Token::Number | Token::Text | Token::Word(_) | Token::Sign(_) => {}
        }
        false
    });
    let (colon, _) = colon?;
    let one = never(&tokens[question + 1..*colon])?;
    never(&tokens[colon + 1..]).map(|_| one)
}

/// Of a call at the end: `size(…)`, `….map(…)`.
fn call_gives(tokens: &[Token<'_>]) -> Option<&'static str> {
    let opening = depths(tokens)
        .enumerate()
        .filter(|(_, (depth, token))| *depth == 1 && matches!(token, Token::Sign("(")))
        .last()?;
    let name = opening.0.checked_sub(1).map(|at| tokens[at])?;
    let Token::Word(name) = name else { return None };
    let is_negated = tokens.first() == Some(&Token::Sign("!"));
    let gives = GIVES.iter().find(|(function, _)| *function == name && !is_negated);
    gives.map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::{is_false, never_boolean};

    #[test]
    fn what_can_never_be_true_or_false() {
        for (source, what) in [
            ("7", "a number"),
            ("-1.5", "a number"),
            ("((7))", "a number"),
            ("'ship'", "text"),
            (r#"r"a\" "#, "text"),
            ("'it\\'s == b'", "text"),
            ("\"\"\"a\"b\"\"\"", "text"),
            ("null", "null"),
            ("[true]", "a list"),
            ("{'a': true}", "a map"),
            ("input.a + 1", "the result of a calculation"),
            ("(input.a == 1) + 2", "the result of a calculation"),
            ("input.items[0] * 2", "the result of a calculation"),
            ("size(input.items)", "a number"),
            ("input.items.map(i, i > 2)", "a list"),
            ("input.ship ? 1 : input.b ? 'a' : 'b'", "a number"),
        ] {
            assert_eq!(never_boolean(source), Some(what), "{source}");
        }
    }

    #[test]
    fn what_may_be_is_left_alone() {
        for source in [
            "true",
            "input.ship",
            "!input.ship",
            "!size(input.a)",
            "input.a + 1 > 2",
            "size(input.items) > 0",
            "input.items.exists(i, i + 1 > 2)",
            "'a' in input.list",
            "has(input.a)",
            "(input.a) || (input.b)",
            "[1, 2][0] == 1",
            "[true, false][0]",
            "{'a': true}.a",
            "input.ship ? 1 : input.other",
            "int(input.a) == 7 // an int",
            "input['a+b']",
            "-input.a < 3",
        ] {
            assert_eq!(never_boolean(source), None, "{source}");
        }
    }

    #[test]
    fn false_is_found_in_brackets() {
        assert!(is_false("false") && is_false(" ((false)) "));
        assert!(!is_false("'false'") && !is_false("false || input.a") && !is_false(""));
    }
}
