use std::collections::HashSet;

use jsonwebtoken::{DecodingKey, Validation};
use serde_json::Value;

use super::*;

const KEY_PEM: &str = include_str!("../../../../tests/fixtures/github/app-key.pem");
const PUBLIC_PEM: &str = include_str!("../../../../tests/fixtures/github/app-key.pub.pem");

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn loaded(files: &[(&str, &str)]) -> Result<Credentials, String> {
    let folder = folder(files);
    load(&Source::Folder(folder.path().to_owned())).map_err(|error| error.to_string())
}

fn claims(id: &str, now: i64) -> Value {
    let app = loaded(&[(APP_ID, id), (INSTALLATION, "8\n"), (KEY, KEY_PEM)]).unwrap();
    let Credentials::App(app) = app else { panic!("an App") };
    assert_eq!(app.installation, 8);
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_exp = false;
    validation.required_spec_claims = HashSet::new();
    let key = DecodingKey::from_rsa_pem(PUBLIC_PEM.as_bytes()).unwrap();
    let jwt = app.jwt(now).unwrap();
    jsonwebtoken::decode::<Value>(jwt.expose_secret(), &key, &validation).unwrap().claims
}

#[test]
fn an_app_signs_for_ten_minutes_at_most_with_its_number_or_client_id() {
    let now = 1_700_000_000;
    assert_eq!(claims("1234\n", now), serde_json::json!({"iat": now - 60, "exp": now + 540, "iss": 1234}));
    assert_eq!(claims("Iv23liABC", now)["iss"], "Iv23liABC");
}

#[test]
fn a_token_is_read_from_its_file_and_from_a_folder() {
    for text in ["ghp_abc", "ghp_abc\n", "  ghp_abc \r\n"] {
        let Ok(Credentials::Token(token)) = loaded(&[(TOKEN, text)]) else { panic!("{text:?}") };
        assert_eq!(token.expose_secret(), "ghp_abc");
    }
    let folder = folder(&[("t", "ghp_abc")]);
    assert!(matches!(load(&Source::Token(folder.path().join("t"))), Ok(Credentials::Token(_))));
}

#[test]
fn files_that_are_wrong_are_named_with_a_remedy_and_without_their_content() {
    let secret = "c2VjcmV0";
    let broken = KEY_PEM.replacen("MII", "AAA", 1);
    let public = PUBLIC_PEM.to_owned();
    let large = "x".repeat(100_000);
    let app = |key| vec![(APP_ID, "1"), (INSTALLATION, "2"), (KEY, key)];
    for (files, name, remedy) in [
        (vec![], "", "neither github_token nor"),
        (vec![(TOKEN, "")], TOKEN, "empty"),
        (vec![(TOKEN, " \n")], TOKEN, "empty"),
        (vec![(TOKEN, "c2VjcmV0 c2VjcmV0")], TOKEN, "the token alone"),
        (vec![(TOKEN, "c2VjcmV0\u{7f}")], TOKEN, "the token alone"),
        (vec![(TOKEN, large.as_str())], TOKEN, "too large"),
        (vec![(TOKEN, "c2VjcmV0"), (KEY, KEY_PEM)], "", "leave one of them out"),
        (vec![(APP_ID, "1")], "", "lacks github_app_installation_id and github_app_private_key"),
        (vec![(APP_ID, "c2VjcmV0 x"), (INSTALLATION, "2"), (KEY, KEY_PEM)], APP_ID, "client id"),
        (vec![(APP_ID, "1"), (INSTALLATION, "c2VjcmV0"), (KEY, KEY_PEM)], INSTALLATION, "number"),
        (vec![(APP_ID, "1"), (INSTALLATION, "0"), (KEY, KEY_PEM)], INSTALLATION, "number"),
        (app(secret), KEY, "Private keys"),
        (app(broken.as_str()), KEY, "Private keys"),
        (app(public.as_str()), KEY, "Private keys"),
        (app(&KEY_PEM[..200]), KEY, "Private keys"),
    ] {
        let error = loaded(&files).err().unwrap();
        assert!(error.contains(name) && error.contains(remedy), "{files:?}: {error}");
        assert!(!error.contains(secret) && !error.contains("MII") && error.len() < 400, "{error}");
    }
    let missing = load(&Source::Folder("/nonexistent/github".into())).err().unwrap().to_string();
    assert!(missing.contains("/nonexistent/github") && missing.contains("look at its path"), "{missing}");
    let binary = folder(&[]);
    fs::write(binary.path().join(TOKEN), b"\xff\xfe").unwrap();
    let error = load(&Source::Folder(binary.path().to_owned())).err().unwrap().to_string();
    assert!(error.contains("no text"), "{error}");
}

#[test]
fn another_file_is_noticed_even_behind_a_link() {
    let folder = folder(&[]);
    let source = Source::Folder(folder.path().to_owned());
    let nothing = stamp(&source);
    // As the kubelet does: the files are links into a folder that is replaced.
    for (name, token) in [("..1", "ghp_a"), ("..2", "ghp_b")] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join(TOKEN), token).unwrap();
    }
    let point = |to: &str| {
        let link = folder.path().join("..new");
        std::os::unix::fs::symlink(to, &link).unwrap();
        fs::rename(link, folder.path().join("..data")).unwrap();
    };
    std::os::unix::fs::symlink(Path::new("..data").join(TOKEN), folder.path().join(TOKEN)).unwrap();
    point("..1");
    let first = (stamp(&source), load(&source).unwrap());
    point("..2");
    let second = (stamp(&source), load(&source).unwrap());
    assert_ne!(nothing, first.0);
    assert_ne!(first.0, second.0);
    assert_eq!(second.0, stamp(&source));
    assert!(first.1.same(&first.1.clone()) && !first.1.same(&second.1));
}
