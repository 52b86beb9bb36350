//! The secret with which the log names keys.

use super::*;

const SECRET: &str = "hunter2!hunter2!hunter2!hunter2!";

/// The secret of this section, which is not shown.
#[track_caller]
fn secret(section: &str, env: &[(&str, &str)]) -> String {
    let config = accepted(section, env);
    assert!(!config.to_toml().contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    config.log.key_hash_secret.map(|secret| secret.reveal().to_owned()).expect("there is one")
}

#[test]
fn keys_are_named_with_a_secret_from_the_file_the_variable_or_a_file_of_its_own() {
    assert_eq!(accepted("", &[]).log.key_hash_secret, None);
    assert_eq!(secret(&format!("log.key_hash_secret = {SECRET:?}"), &[]), SECRET);
    assert_eq!(secret("", &[("GATEWAY_LOG__KEY_HASH_SECRET", SECRET)]), SECRET);
    let file = tokens_file(&format!("{SECRET}\n"));
    let in_file = format!("log.key_hash_secret_file = {}", quoted(&file));
    assert_eq!(secret(&in_file, &[]), SECRET);
    assert_eq!(
        refused(&in_file, &[("GATEWAY_LOG__KEY_HASH_SECRET", SECRET)]),
        ["log.key_hash_secret_file: must not be given beside GATEWAY_LOG__KEY_HASH_SECRET"]
    );
}

#[test]
fn a_secret_that_can_be_guessed_is_refused_and_not_quoted() {
    let sentence = "must have at least 32 characters, such as those of `openssl rand -hex 32`";
    assert_eq!(refused("log.key_hash_secret = \"hunter2\"", &[]), [format!("log.key_hash_secret: {sentence}")]);
    assert_eq!(refused("log.key_hash_secret = \"***\"", &[]), [format!("log.key_hash_secret: {sentence}")]);
    let variable = ("GATEWAY_LOG__KEY_HASH_SECRET", &SECRET[1..]);
    assert_eq!(refused("", &[variable]), [format!("GATEWAY_LOG__KEY_HASH_SECRET: {sentence}")]);
    let file = tokens_file("hunter2\n");
    let in_file = format!("log.key_hash_secret_file = {}", quoted(&file));
    assert_eq!(refused(&in_file, &[]), [format!("log.key_hash_secret_file: {sentence}")]);
    assert_eq!(
        refused("log.key_hash_secret_file = \"/nowhere\"", &[]),
        ["log.key_hash_secret_file: cannot be read: entity not found"]
    );
    assert_eq!(refused("log.key_hash_secret = 7", &[]), ["log.key_hash_secret: must be a string"]);
}
