use super::*;

fn parse(text: &str) -> Result<Option<GitHubSettings>, Vec<String>> {
    crate::config::configuration(&text.parse().unwrap()).map(|configuration| configuration.github)
}

#[test]
fn what_is_said_is_read_and_what_is_written_is_read_back() {
    let text = "[github]\ncredentials = '/a \"b'\nurl = \"https://github.example.org\"\napi_url = \"https://api.x\"\n\
                ca_file = \"/ca.pem\"\nproxy = \"http://proxy:3128\"\ntimeout_s = 5\ncancel = false\n\
                force_cancel = true\nforce_cancel_after_s = 90\ncheck_run = false";
    let settings = parse(text).unwrap().unwrap();
    let Settings { url, api_url, source, ca_file, proxy, timeout } = settings.connection.clone();
    assert_eq!((url.as_str(), api_url.as_deref()), ("https://github.example.org", Some("https://api.x")));
    assert_eq!(source, Source::Folder("/a \"b".into()));
    assert_eq!((ca_file, proxy.as_deref()), (Some("/ca.pem".into()), Some("http://proxy:3128")));
    assert_eq!((timeout, settings.force_cancel_after), (Duration::from_secs(5), Duration::from_secs(90)));
    assert!(!settings.cancel && settings.force_cancel && !settings.check_run);
    assert_eq!(parse(&written(Some(&settings))), Ok(Some(settings)));
    for way in [
        "token_file = \"/t\"",
        "app_id = 7\ninstallation_id = 8\nprivate_key_file = \"/k\"",
        "app_id = \"Iv23liX\"\ninstallation_id = 8\nprivate_key_file = \"/k\"",
        "arc_secret = true",
        "arc_secret = false\ntoken_file = \"/t\"",
    ] {
        let settings = parse(&format!("[github]\n{way}")).unwrap();
        assert!(settings.as_ref().is_some_and(|settings| settings.cancel && !settings.force_cancel));
        assert_eq!(parse(&written(settings.as_ref())), Ok(settings));
    }
}

#[test]
fn without_credentials_github_is_off() {
    assert_eq!(parse(""), Ok(None));
    assert_eq!(parse(&written(None)), Ok(None));
    // What is written as a comment is what would be right.
    let on = written(None).replace("# [github]", "[github]").replace("# credentials =", "credentials =");
    assert!(parse(&on).unwrap().is_some(), "{on}");
}

#[test]
fn mistakes_are_told_with_value_and_remedy() {
    let problems = parse(
        "[github]\nurl = \"http://github.com\"\napi_url = 1\nproxy = \"socks5://x\"\nca_file = \"ca.pem\"\n\
         timeout_s = 0\nforce_cancel_after_s = 1\ncancel = \"yes\"\nforce_cancel = 1\ncheck_run = 0\ntoken = \"x\"\n\
         credentials = 3\ntoken_file = \"t\"\napp_id = \"a b\"\ninstallation_id = -1\nprivate_key_file = \"\"",
    )
    .unwrap_err();
    for (name, remedy) in [
        ("github.url = \"http://github.com\"", "https"),
        ("github.api_url = 1", "as a text"),
        ("github.proxy = \"socks5://x\"", "http and https"),
        ("github.ca_file = \"ca.pem\"", "from the root"),
        ("github.timeout_s = 0", "from 1 to"),
        ("github.force_cancel_after_s = 1", "from 10 to"),
        ("github.cancel = \"yes\"", "true or false"),
        ("github.force_cancel = 1", "true or false"),
        ("github.check_run = 0", "true or false"),
        ("github.token:", "token_file"),
        ("github: write credentials", "only one"),
        ("github.credentials = 3", "from the root"),
        ("github.token_file = \"t\"", "from the root"),
        ("github.app_id = \"a b\"", "client id"),
        ("github.installation_id = -1", "number"),
        ("github.private_key_file = \"\"", "from the root"),
    ] {
        assert!(problems.iter().any(|p| p.starts_with(name) && p.contains(remedy)), "{name}: {problems:#?}");
    }
    assert_eq!(problems.len(), 16, "{problems:#?}");
    let problems = parse("[github]\ncheck_run = true").unwrap_err();
    assert!(problems[0].contains("leave [github] out"), "{problems:?}");
    let problems = parse("[github]\napp_id = 1").unwrap_err();
    assert!(problems[0].contains("installation_id and private_key_file"), "{problems:?}");
    for (ways, count) in
        [("arc_secret = true\ntoken_file = \"/t\"", 1), ("arc_secret = false", 1), ("arc_secret = 1", 1)]
    {
        let problems = parse(&format!("[github]\n{ways}")).unwrap_err();
        assert!(problems.len() == count && problems[0].contains("arc_secret"), "{ways}: {problems:?}");
    }
    assert!(parse("github = 1").unwrap_err()[0].contains("[github]"));
}

#[test]
fn secrets_in_the_wrong_place_are_not_repeated() {
    let secret = "ghp_0123456789abcdefABCDEF0123456789abcd";
    let pem = "-----BEGIN RSA PRIVATE KEY----- c2VjcmV0";
    for text in [
        format!("[github]\ntoken_file = \"{secret}\""),
        format!("[github]\ntoken = \"{secret}\""),
        format!("[github]\napp_id = \"{secret}\"\ninstallation_id = 1\nprivate_key_file = \"{pem}\""),
        format!("github = \"{secret}\""),
        "[github]\ntoken_file = \"/t\"\nproxy = \"http://user:c2VjcmV0@proxy:3128\"".to_owned(),
        "[github]\ntoken_file = \"/t\"\nurl = \"https://user:c2VjcmV0@github.com\"".to_owned(),
    ] {
        let problems = parse(&text).unwrap_err().join("\n");
        assert!(!problems.contains("0123456789") && !problems.contains("c2VjcmV0"), "{problems}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memguard.toml");
    std::fs::write(&path, format!("[github]\ntoken = {secret}\n")).unwrap();
    let error = crate::config::read(&path).unwrap_err().to_string();
    assert!(error.contains("token") && !error.contains("0123456789"), "{error}");
}
