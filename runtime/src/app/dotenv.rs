//! `.env` files: `NAME=value` lines, comments, quotes, `${NAME}` of an earlier line.
//!
//! An own reader because a `.env` must not see the node's environment, which crates for it fall back to, and
//! because its errors name the line.

use std::collections::BTreeMap;

type Fault = (usize, String);

/// The variables of a `.env` file, or the line (from 1) and what is wrong there. A later line wins.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser { rest: text, line: 1, variables: BTreeMap::new() };
    while !parser.rest.is_empty() {
        parser.line()?;
    }
    Ok(parser.variables)
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
    variables: BTreeMap<String, String>,
}

impl Parser<'_> {
    fn line(&mut self) -> Result<(), Fault> {
        self.skip_blanks();
        if !self.rest.starts_with(['#', '\n', '\r']) && !self.rest.is_empty() {
            if let Some(rest) = self.rest.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])) {
                self.rest = rest;
                self.skip_blanks();
            }
            let name = self.name()?;
            let value = self.value()?;
            self.variables.insert(name, value);
        }
        self.rest_of_line()
    }

    fn name(&mut self) -> Result<String, Fault> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '-';
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.skip_blanks();
        let has_value = self.rest.starts_with('=');
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !has_value {
            return self.fault("expected NAME=value");
        }
        self.rest = &self.rest[1..];
        self.skip_blanks();
        Ok(name.to_owned())
    }

    fn value(&mut self) -> Result<String, Fault> {
        let opening = self.rest.chars().next();
        match opening {
            Some(quote @ ('\'' | '"')) => self.quoted(quote),
            _ => self.plain(),
        }
    }

    /// Up to the closing quote, over lines. Double quotes know escapes and `${NAME}`, single quotes nothing.
    fn quoted(&mut self, quote: char) -> Result<String, Fault> {
        let opened = self.line;
        let mut value = String::new();
        self.next();
        while let Some(character) = self.next() {
            match character {
                _ if character == quote => return Ok(value),
                '\\' if quote == '"' => match self.next() {
                    Some('n') => value.push('\n'),
                    Some('r') => value.push('\r'),
                    Some('t') => value.push('\t'),
                    Some(other @ ('"' | '\\' | '$' | '\n')) => value.push(other),
                    Some(other) => value.extend(['\\', other]),
                    None => break,
                },
                '$' if quote == '"' => self.expand(&mut value)?,
                '\0' => return self.fault("the value contains a NUL character"),
                _ => value.push(character),
            }
        }
        Err((opened, format!("the quote {quote} is never closed")))
    }

    /// Up to the end of the line or ` #`.
    fn plain(&mut self) -> Result<String, Fault> {
        let mut value = String::new();
        while !self.rest.starts_with(['\n', '\r']) {
            if self.rest.starts_with('#') && (value.is_empty() || value.ends_with([' ', '\t'])) {
                break;
            }
            match self.next() {
                None => break,
                Some('\0') => return self.fault("the value contains a NUL character"),
                Some('\\') if self.rest.starts_with('$') => value.extend(self.next()),
                Some('$') => self.expand(&mut value)?,
                Some(character) => value.push(character),
            }
        }
        value.truncate(value.trim_end().len());
        Ok(value)
    }

    /// After a `$`: only `${NAME}` refers to a variable, so that passwords may have a `$`.
    fn expand(&mut self, value: &mut String) -> Result<(), Fault> {
        let Some((name, rest)) = self.rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
            value.push('$');
            return Ok(());
        };
        let Some(known) = self.variables.get(name) else {
            return self.fault(&format!("${{{name}}} is not set above; write \\$ for a plain dollar sign"));
        };
        value.push_str(known);
        self.rest = rest;
        Ok(())
    }

    /// Blanks and a comment may follow a value, nothing else.
    fn rest_of_line(&mut self) -> Result<(), Fault> {
        self.skip_blanks();
        let (end, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        if !end.trim_end_matches('\r').is_empty() && !end.starts_with('#') {
            return self.fault("unexpected text after the closing quote");
        }
        self.line += 1;
        self.rest = rest;
        Ok(())
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn next(&mut self) -> Option<char> {
        let character = self.rest.chars().next()?;
        self.rest = &self.rest[character.len_utf8()..];
        self.line += usize::from(character == '\n');
        Some(character)
    }

    fn fault<T>(&self, message: &str) -> Result<T, Fault> {
        Err((self.line, message.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> String {
        parse(text).unwrap_or_else(|fault| panic!("{text:?}: {fault:?}"))["A"].clone()
    }

    #[test]
    fn values_are_read_as_people_write_them() {
        for (text, expected) in [
            ("A=1", "1"),
            ("A=1\r\n", "1"),
            ("  export A = 1  ", "1"),
            ("\u{feff}A=1", "1"),
            ("A=", ""),
            ("A=\nB=2", ""),
            ("A=# none", ""),
            ("A=a b # comment", "a b"),
            ("A=a#b", "a#b"),
            ("A=http://x/?a=b&c", "http://x/?a=b&c"),
            ("A=pa$$word$1", "pa$$word$1"),
            ("A='a # $B ${B} \\n'", "a # $B ${B} \\n"),
            (r#"A="a # b\n\t\"c\" \\ \$ \d" # comment"#, "a # b\n\t\"c\" \\ $ \\d"),
            ("A=\"one\ntwo\"\nB=3", "one\ntwo"),
            ("A=it's", "it's"),
            ("A=ü", "ü"),
            ("A=1\nA=2", "2"),
            ("export=3\nA=1", "1"),
        ] {
            assert_eq!(value(text), expected, "{text:?}");
        }
    }

    #[test]
    fn earlier_variables_expand_in_braces() {
        assert_eq!(value("B=x\nA=${B}y"), "xy");
        assert_eq!(value("B=x\nA=\"${B} $B\""), "x $B");
        assert_eq!(value("B=x\nA=\\${B}"), "${B}");
    }

    #[test]
    fn environment_of_the_node_is_out_of_reach() {
        assert!(std::env::var_os("PATH").is_some());
        let (line, message) = parse("A=1\nB=${PATH}").unwrap_err();
        assert_eq!((line, message.as_str()), (2, "${PATH} is not set above; write \\$ for a plain dollar sign"));
    }

    #[test]
    fn faults_name_their_line() {
        for (text, line) in [
            ("A", 1),
            ("# c\n\nA: 1", 3),
            ("A=1\n=2", 2),
            ("1A=2", 1),
            ("A='x' y", 1),
            ("B=1\nA='x\ny\nz", 2),
            ("A=\"x\ny\"\nB", 3),
            ("A=\"x\\", 1),
            ("A=a\0b", 1),
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text:?}");
        }
    }
}
