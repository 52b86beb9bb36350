//! The tokens of callers: a file with one `name:sha256-hex-of-token` on each line, blank lines and `#` comments aside.
//!
//! Invariants: a token is kept as its hash only, and not even that is printed; what is wrong with a file is said with
//! the number of the line and quotes nothing of it.

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// Tokens in one file: the token of each request is compared with all of them.
pub const MAX_TOKENS: usize = 1000;

/// Bytes of a file. As many of the longest lines take a quarter of that.
const MAX_BYTES: u64 = 512 << 10;

/// Letters in a name, which is shown in metrics.
const MAX_NAME: usize = 64;

/// The name in metrics of the clients that have no series of their own.
pub const RESERVED: &str = "other";

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u64; 4]);

/// One token, and whose it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The client's name. It may have several tokens, so that one can take another's place.
    pub name: Arc<str>,
    /// What the token is known by.
    pub digest: Digest,
}

/// Every token that is good, none of them twice.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

/// What is wrong with a file of tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flaw {
    /// The line, counted from 1; none where it is the whole file.
    line: Option<usize>,
    sentence: Cow<'static, str>,
}

impl Digest {
    /// What a token is known by.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        let bytes: [u8; 32] = Sha256::digest(token).into();
        let (words, _) = bytes.as_chunks::<8>();
        Self(std::array::from_fn(|index| u64::from_be_bytes(words[index])))
    }

    /// From 64 hexadecimal digits.
    fn from_hex(text: &str) -> Option<Self> {
        let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let word = |index: usize| u64::from_str_radix(text.get(index * 16..(index + 1) * 16)?, 16).ok();
        if is_hex { Some(Self([word(0)?, word(1)?, word(2)?, word(3)?])) } else { None }
    }
}

impl ConstantTimeEq for Digest {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it; one that cannot be read is wrong too.
    pub fn read(path: &Path) -> Result<Self, Vec<Flaw>> {
        let unreadable = |error: io::Error| vec![Flaw::whole(format!("cannot be read: {}", error.kind()))];
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(vec![Flaw::whole("is too large to be a list of tokens")]);
        }
        Self::parse(&bytes)
    }

    /// Understands a file's content.
    ///
    /// # Errors
    /// Every bad line.
    pub fn parse(content: &[u8]) -> Result<Self, Vec<Flaw>> {
        let mut tokens = Vec::new();
        let mut flaws = Vec::new();
        let mut seen = HashSet::new();
        for (number, line) in (1..).zip(content.split(|byte| *byte == b'\n')) {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            match token(line) {
                Ok(token) if seen.insert(token.digest) => tokens.push(token),
                Ok(_) => flaws.push(Flaw::at(number, "has a hash that an earlier line has")),
                Err(sentence) => flaws.push(Flaw::at(number, sentence)),
            }
        }
        if tokens.is_empty() && flaws.is_empty() {
            flaws.push(Flaw::whole("names no client, so that nobody could call"));
        }
        if tokens.len() > MAX_TOKENS {
            flaws.push(Flaw::whole(format!("has more than {MAX_TOKENS} tokens")));
        }
        if flaws.is_empty() { Ok(Self(tokens)) } else { Err(flaws) }
    }

    /// Each token, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Token> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Tokens {
    type Item = &'a Token;
    type IntoIter = std::slice::Iter<'a, Token>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Flaw {
    fn at(line: usize, sentence: &'static str) -> Self {
        Self { line: Some(line), sentence: sentence.into() }
    }

    fn whole(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { line: None, sentence: sentence.into() }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line} {}", self.sentence),
            None => f.write_str(&self.sentence),
        }
    }
}

/// One line, or the sentence that says why it is none.
fn token(line: &[u8]) -> Result<Token, &'static str> {
    let text = std::str::from_utf8(line).or(Err("must be text"))?;
    let (name, hash) = text.split_once(':').ok_or("must be name:sha256-hex-of-token")?;
    let (name, hash) = (name.trim(), hash.trim());
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(is_plain) {
        return Err("must begin with a name of at most 64 letters, digits, dots, dashes and underscores");
    }
    if name == RESERVED {
        return Err(r#"must not name a client "other": metrics call those so that have no series of their own"#);
    }
    let digest = Digest::from_hex(hash).ok_or("must end with a SHA-256 in 64 hexadecimal digits")?;
    if digest == Digest::of(b"") {
        return Err("has the hash of no token at all");
    }
    Ok(Token { name: name.into(), digest })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// `printf abc | sha256sum`, from FIPS 180-2.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    /// Of nothing.
    const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn flaws(content: &str) -> Vec<String> {
        let flaws = Tokens::parse(content.as_bytes()).expect_err("it must be refused");
        flaws.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_line_is_a_name_and_a_hash_and_the_rest_is_comments() {
        let other = ABC.to_uppercase().replace("BA", "00");
        let tokens = Tokens::parse(format!("# who\n\n  crm:{ABC}\r\n \t\n#x:y\ncrm: {other}").as_bytes());
        let tokens = tokens.expect("good lines");
        let found: Vec<_> = tokens.iter().map(|token| (&*token.name, token.digest)).collect();
        assert_eq!(found, [("crm", Digest::of(b"abc")), ("crm", Digest::from_hex(&other).expect("hex"))]);
        assert_ne!(found[0].1, found[1].1);
    }

    #[test]
    fn every_bad_line_is_told_with_its_number_and_without_a_word_of_it() {
        let long = "n".repeat(65);
        let text = format!(
            "good:{ABC}\nhunter2\nhunter2 x:{ABC}\n:{ABC}\n{long}:{ABC}\nhunter2:{}\nhunter2:+{}\nother:{ABC}\n\
             hunter2:{NOTHING}\nhunter2:{ABC}\nhunter2:{ABC} # why\n",
            &ABC[1..],
            &ABC[1..]
        );
        let found = flaws(&text);
        let lines: Vec<_> = found.iter().map(|flaw| flaw.split(' ').nth(1).expect("a number")).collect();
        assert_eq!(lines, ["2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]);
        assert!(found.iter().all(|flaw| !flaw.contains("hunter2") && !flaw.contains(&ABC[1..10])), "{found:?}");
        assert!(found[8].contains("earlier line"), "{found:?}");
        assert_eq!(Tokens::parse(b"\xff\xfe:x").expect_err("no text")[0].to_string(), "line 1 must be text");
    }

    #[test]
    fn a_file_that_lets_nobody_in_or_too_many_is_refused() {
        assert_eq!(flaws("# nobody\n"), ["names no client, so that nobody could call"]);
        let lines = |count: usize| (0..count).map(|n| format!("c{n}:{n:064x}\n")).collect::<String>();
        assert!(Tokens::parse(lines(MAX_TOKENS).as_bytes()).is_ok());
        assert_eq!(flaws(&lines(MAX_TOKENS + 1)), ["has more than 1000 tokens"]);
    }

    #[test]
    fn a_file_is_read_within_a_limit() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        writeln!(file, "crm:{ABC}").expect("room for a line");
        assert!(Tokens::read(file.path()).is_ok());
        file.write_all(&vec![b'\n'; MAX_BYTES as usize]).expect("room for more");
        assert!(Tokens::read(file.path()).is_err_and(|flaws| flaws[0].to_string().contains("too large")));
        let path = file.path().to_owned();
        drop(file);
        assert!(Tokens::read(&path).is_err_and(|flaws| flaws[0].to_string().starts_with("cannot be read")));
    }

    #[test]
    fn neither_a_token_nor_its_hash_is_printed() {
        let tokens = Tokens::parse(format!("crm:{ABC}").as_bytes()).expect("a good line");
        assert_eq!(format!("{tokens:?} {:?}", Digest::of(b"abc")), r#"["crm"] ***"#);
    }

    #[test]
    fn hashes_are_equal_when_every_bit_is() {
        let one = Digest::of(b"abc");
        assert!(bool::from(one.ct_eq(&Digest::of(b"abc"))));
        for word in 0..4 {
            let mut other = one;
            other.0[word] ^= 1 << 17;
            assert!(!bool::from(one.ct_eq(&other)));
        }
    }
}
