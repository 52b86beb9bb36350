//! What of the upstream's own words may be shown: a code or a sentence, unless it repeats what was asked.
//!
//! Upstreams like to quote (`138****8000 not found`), so a text is withheld when in doubt: too long, too many digits,
//! or a piece of a key, a token or a body field in it.

use crate::upstream::Spelling;

/// What stands in the place of a text that is withheld.
pub(super) const WITHHELD: &str = "(not shown)";

/// Codes are short; what is longer says something else.
const MAX_CODE: usize = 32;

/// `操作成功` has four characters, and a sentence that is worth showing not many more.
const MAX_MSG: usize = 40;

/// Codes have six digits, phone numbers eleven.
const MAX_DIGITS: usize = 8;

/// A piece of a secret is one from this many characters on: the last four digits of a phone number are shown on bills.
const PIECE: usize = 4;

/// The texts that must not be shown.
pub(super) struct Discretion {
    secrets: Vec<String>,
}

impl Discretion {
    pub(super) fn new(secrets: Vec<String>) -> Self {
        Self { secrets }
    }

    /// The envelope with what is not fit to be shown withheld.
    pub(super) fn of(&self, spelling: Spelling) -> Spelling {
        let code = |code: String| if self.may_show_code(&code) { code } else { WITHHELD.to_owned() };
        let msg = if self.may_show_msg(&spelling.msg) { spelling.msg } else { WITHHELD.to_owned() };
        Spelling { code: code(spelling.code), error_code: code(spelling.error_code), msg, data: spelling.data }
    }

    fn may_show_code(&self, code: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let quotes = |secret: &String| secret.chars().count() >= PIECE && code.contains(secret.as_str());
        code.len() <= MAX_CODE && code.bytes().all(plain) && few_digits(code) && !self.secrets.iter().any(quotes)
    }

    fn may_show_msg(&self, msg: &str) -> bool {
        let letters: Vec<char> = msg.chars().collect();
        let plain = letters.len() <= MAX_MSG && !letters.iter().any(|letter| letter.is_control());
        let quotes = |secret: &String| {
            let piece = |piece: &[char]| secret.contains(&piece.iter().collect::<String>());
            msg == secret || letters.windows(PIECE).any(piece)
        };
        plain && few_digits(msg) && !self.secrets.iter().any(quotes)
    }
}

fn few_digits(text: &str) -> bool {
    text.chars().filter(char::is_ascii_digit).count() <= MAX_DIGITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::DataForm;

    fn shown(code: &str, msg: &str) -> (String, String) {
        let discretion = Discretion::new(vec!["13800138000".to_owned(), "tok-secret".to_owned(), "张三".to_owned()]);
        let spelling =
            Spelling { code: code.to_owned(), error_code: String::new(), msg: msg.to_owned(), data: DataForm::Null };
        let spelling = discretion.of(spelling);
        (spelling.code, spelling.msg)
    }

    #[test]
    fn codes_and_short_sentences_are_shown() {
        for (code, msg) in [("200", "ok"), ("100200", "操作成功"), ("SUCCESS", ""), ("", "操作频繁,请稍后重试")]
        {
            assert_eq!(shown(code, msg), (code.to_owned(), msg.to_owned()));
        }
    }

    #[test]
    fn what_repeats_a_key_or_looks_like_one_is_withheld() {
        for text in ["13800138000", "no 138****8000", "tok-secret", "张三", "86-13912345678", "two\nlines"] {
            let (code, msg) = shown(text, text);
            assert_eq!((&*code, &*msg), (WITHHELD, WITHHELD), "{text}");
        }
        assert_eq!(shown("200", &"long ".repeat(20)).1, WITHHELD);
    }
}
