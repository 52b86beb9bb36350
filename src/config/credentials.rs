//! `[upstream.credentials]`: whose credential goes upstream.

use http::{HeaderName, header};

use super::{
    reader::Section,
    value::{Read, choice, string},
};
use crate::{
    secret::Secret,
    upstream::credentials::{Application, Mode},
};

/// A secret is a line, not a film.
const LONGEST_SECRET: usize = 4096;

/// Whose credential goes upstream. What is returned while there are problems is a stand-in.
pub(super) fn credentials(section: &mut Section<'_>) -> Mode {
    let is_managed = section.take("mode", false, choice(&[("forward", false), ("managed", true)]));
    let headers = section.list("forward_headers", &["x-token"], string(credential_header));
    let id = section.optional("instance_appid", string(|id| Ok(id.to_owned())));
    let given = section.optional("instance_secret", string(|secret| Ok(Secret::new(secret))));
    let in_file = section.optional("instance_secret_file", string(secret_file));
    if is_managed {
        return managed(section, id, [given, in_file]);
    }
    let own = [
        ("instance_appid", id.is_some()),
        ("instance_secret", given.is_some()),
        ("instance_secret_file", in_file.is_some()),
    ];
    for (key, _) in own.into_iter().filter(|(_, is_given)| *is_given) {
        section.problem(key, r#"is only for mode = "managed""#);
    }
    if section.is_sound("forward_headers") {
        if headers.is_empty() {
            section.problem("forward_headers", "must name at least one header: it is what tells callers apart");
        }
        if (1..headers.len()).any(|index| headers[..index].contains(&headers[index])) {
            section.problem("forward_headers", "names a header twice");
        }
    }
    Mode::Forward(headers)
}

fn managed(section: &mut Section<'_>, id: Option<String>, secrets: [Option<Secret>; 2]) -> Mode {
    if id.is_none() && section.is_sound("instance_appid") {
        section.problem("instance_appid", r#"is required by mode = "managed""#);
    }
    let secret = match secrets {
        [Some(_), Some(_)] => {
            let other = section.name("instance_secret");
            section.problem("instance_secret_file", format!("must not be given beside {other}"));
            None
        }
        [None, None] => {
            if section.is_sound("instance_secret") && section.is_sound("instance_secret_file") {
                let sentence = "is required by mode = \"managed\", here, in instance_secret_file, or in the variable \
                                GATEWAY_UPSTREAM__CREDENTIALS__INSTANCE_SECRET";
                section.problem("instance_secret", sentence);
            }
            None
        }
        [given, in_file] => given.or(in_file),
    };
    Mode::Managed(Application { id: id.unwrap_or_default(), secret: secret.unwrap_or_else(|| Secret::new("")) })
}

pub(super) fn secret_file(path: &str) -> Read<Secret> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {}", error.kind()))?;
    let secret = text.trim();
    if secret.is_empty() || secret.len() > LONGEST_SECRET || secret.contains('\n') {
        return Err("must hold the secret on one line, and nothing else".to_owned());
    }
    Ok(Secret::new(secret))
}

/// A header that says who is asking.
pub(super) fn credential_header(name: &str) -> Read<HeaderName> {
    /// Headers that belong to one connection or one message, so that none of them can say who is asking.
    const NOT_THE_CALLERS: [HeaderName; 9] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::HOST,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let name: HeaderName = name.parse().or(Err("must be the name of a header"))?;
    if NOT_THE_CALLERS.contains(&name) {
        return Err("must not be a header that belongs to one connection or message".to_owned());
    }
    Ok(name)
}
