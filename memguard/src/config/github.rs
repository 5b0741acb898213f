//! `[github]`: which GitHub, with whose credentials, and what is asked of it after a kill.

use std::{path::PathBuf, time::Duration};

use toml::{Table, Value};

use super::{Problems, comment};
use crate::github::{Settings, Source, api_address, looks_secret, proxy_address, web_address};

/// What the file says about GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitHubSettings {
    pub connection: Settings,
    /// Cancel the run of a job whose container was ended.
    pub cancel: bool,
    /// Force it, if the run goes on for all that.
    pub force_cancel: bool,
    /// So long after the cancellation.
    pub force_cancel_after: Duration,
    /// Tell the developer on the commit.
    pub check_run: bool,
}

impl GitHubSettings {
    fn new(source: Source) -> Self {
        Self {
            connection: Settings::new(source),
            cancel: true,
            force_cancel: false,
            force_cancel_after: Duration::from_mins(1),
            check_run: true,
        }
    }
}

/// Names of the settings, their ranges where they are numbers, and what they are for.
const OFF: &str = "Without credentials nothing is asked of GitHub: the run of a job that was ended fails there some ten \
                   minutes later, by itself. [github] with these settings turns it on; the first four ways to name \
                   credentials exclude each other.";
const CREDENTIALS: (&str, &str) = (
    "credentials",
    "A folder with credentials, as a Secret for ARC is mounted: github_token, or github_app_id, \
     github_app_installation_id and github_app_private_key. Read again when they change.",
);
const TOKEN_FILE: (&str, &str) = ("token_file", "Or a file with a token.");
const APP_ID: (&str, &str) = ("app_id", "Or a GitHub App: its number or client id,");
const INSTALLATION: (&str, &str) = ("installation_id", "the number of its installation,");
const KEY: (&str, &str) = ("private_key_file", "and a file with its private key (PEM).");
const ARC_SECRET: (&str, &str) = (
    "arc_secret",
    "Or ARC's own credentials: the Secret that the runner's EphemeralRunner names, read through the Kubernetes API when it is \
     needed. Takes the right to read it (the chart's value github.arcSecrets), and an App that may cancel runs. Not for runners \
     of actions.summerwind.dev.",
);
const URL: (&str, &str) = (
    "url",
    "The GitHub that the runners belong to, as in a browser: github.com, a host at ghe.com, or an Enterprise Server.",
);
const API_URL: (&str, &str) = ("api_url", "Its REST API, where it is not what follows from url.");
const CA_FILE: (&str, &str) = ("ca_file", "Certificates (PEM) to trust besides those of the system.");
const PROXY: (&str, &str) = (
    "proxy",
    "A proxy, as http://proxy.example:3128. Without it HTTPS_PROXY counts; NO_PROXY does in any case. One that wants a \
     password belongs into HTTPS_PROXY.",
);
const TIMEOUT: (&str, u32, u32, &str) = ("timeout_s", 1, 300, "For one request with its whole answer.");
const CANCEL: (&str, &str) = ("cancel", "Cancel the run of a job whose container was ended.");
const FORCE: (&str, &str) =
    ("force_cancel", "If the run goes on for all that, force it: conditions as always() are passed over then.");
const WAIT: (&str, u32, u32, &str) = ("force_cancel_after_s", 10, 3600, "So long after the cancellation.");
const CHECK_RUN: (&str, &str) = (
    "check_run",
    "Tell the developer on the commit what happened: by a check run, or with a token by a commit status.",
);

const NAMES: [&str; 15] = [
    CREDENTIALS.0,
    TOKEN_FILE.0,
    APP_ID.0,
    INSTALLATION.0,
    KEY.0,
    ARC_SECRET.0,
    URL.0,
    API_URL.0,
    CA_FILE.0,
    PROXY.0,
    TIMEOUT.0,
    CANCEL.0,
    FORCE.0,
    WAIT.0,
    CHECK_RUN.0,
];

/// `None` if there are no credentials, which is a mistake once there is a table.
pub(super) fn read(table: &Table, problems: &mut Problems) -> Option<GitHubSettings> {
    let source = source(table, problems);
    let mut settings = GitHubSettings::new(source.clone().unwrap_or(Source::Folder(PathBuf::new())));
    let GitHubSettings { connection, cancel, force_cancel, force_cancel_after, check_run } = &mut settings;
    for (key, value) in table {
        let name = format!("github.{key}");
        match key.as_str() {
            "url" => {
                if let Some(url) = address(&name, value, problems, |text| web_address(text).map(drop)) {
                    connection.url = url;
                }
            }
            "api_url" => connection.api_url = address(&name, value, problems, |text| api_address(text).map(drop)),
            "proxy" => connection.proxy = address(&name, value, problems, |text| proxy_address(text).map(drop)),
            "ca_file" => connection.ca_file = path(&name, value, problems),
            "timeout_s" => seconds(&name, value, TIMEOUT, problems, &mut connection.timeout),
            "force_cancel_after_s" => seconds(&name, value, WAIT, problems, force_cancel_after),
            "cancel" => flag(&name, value, problems, cancel),
            "force_cancel" => flag(&name, value, problems, force_cancel),
            "check_run" => flag(&name, value, problems, check_run),
            "credentials" | "token_file" | "app_id" | "installation_id" | "private_key_file" | "arc_secret" => {}
            _ => problems.unknown(&name, &NAMES),
        }
    }
    source.map(|_| settings)
}

fn source(table: &Table, problems: &mut Problems) -> Option<Source> {
    let named = |key: &str| table.get(key).map(|value| (format!("github.{key}"), value));
    let app = [APP_ID.0, INSTALLATION.0, KEY.0];
    let of_app = app.iter().filter(|key| table.contains_key(**key)).count();
    // `false` is as good as not there.
    let mut arc = false;
    if let Some((name, value)) = named(ARC_SECRET.0) {
        flag(&name, value, problems, &mut arc);
        arc |= value.as_bool().is_none();
    }
    let ways = usize::from(table.contains_key(CREDENTIALS.0))
        + usize::from(table.contains_key(TOKEN_FILE.0))
        + usize::from(arc);
    if ways + usize::from(of_app > 0) != 1 {
        problems.0.push(format!(
            "github: write credentials, or token_file, or {} together, or {} = true{}",
            app.join(", "),
            ARC_SECRET.0,
            if ways + of_app == 0 {
                "; to ask nothing of GitHub, leave [github] out"
            } else {
                ", and only one of these"
            }
        ));
    }
    let folder = named(CREDENTIALS.0).and_then(|(name, value)| path(&name, value, problems)).map(Source::Folder);
    let token = named(TOKEN_FILE.0).and_then(|(name, value)| path(&name, value, problems)).map(Source::Token);
    if of_app > 0 && of_app < app.len() && ways == 0 {
        let missing: Vec<_> = app.into_iter().filter(|key| !table.contains_key(*key)).collect();
        problems.0.push(format!("github: for an App, {} is missing", missing.join(" and ")));
    }
    let id = named(APP_ID.0).and_then(|(name, value)| app_id(&name, value, problems));
    let installation = named(INSTALLATION.0).and_then(|(name, value)| {
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0);
        if number.is_none() {
            add(&name, value, "write the installation's number", problems);
        }
        number
    });
    let key = named(KEY.0).and_then(|(name, value)| path(&name, value, problems));
    let app = (|| Some(Source::App { id: id?, installation: installation?, key: key? }))();
    folder.or(token).or(app).or_else(|| arc.then_some(Source::Arc))
}

fn app_id(name: &str, value: &Value, problems: &mut Problems) -> Option<String> {
    let good = |text: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !text.is_empty() && text.len() <= 64 && text.chars().all(known) && !looks_secret(text)
    };
    let id = match value {
        Value::Integer(number) if *number > 0 => Some(number.to_string()),
        Value::String(text) if good(text) => Some(text.clone()),
        _ => None,
    };
    if id.is_none() {
        add(name, value, "write the App's number or its client id", problems);
    }
    id
}

/// A mistake, without the value if that is a secret in the wrong place.
fn add(name: &str, value: &Value, remedy: &str, problems: &mut Problems) {
    if value.as_str().is_some_and(looks_secret) {
        let what = "this looks like a secret itself, so it is not repeated here; write it into a file of its own";
        problems.0.push(format!("{name}: {what}; {remedy}"));
    } else {
        problems.add(name, value, remedy);
    }
}

fn path(name: &str, value: &Value, problems: &mut Problems) -> Option<PathBuf> {
    let path = value.as_str().filter(|text| text.starts_with('/') && !looks_secret(text)).map(PathBuf::from);
    if path.is_none() {
        add(name, value, r#"write a path from the root, as "/etc/memguard/github""#, problems);
    }
    path
}

fn address(
    name: &str,
    value: &Value,
    problems: &mut Problems,
    check: impl Fn(&str) -> Result<(), &'static str>,
) -> Option<String> {
    match value.as_str().map(|text| (text, check(text))) {
        Some((text, Ok(()))) => Some(text.to_owned()),
        Some((_, Err(remedy))) => {
            add(name, value, remedy, problems);
            None
        }
        None => {
            add(name, value, "write an address as a text", problems);
            None
        }
    }
}

fn flag(name: &str, value: &Value, problems: &mut Problems, into: &mut bool) {
    match value.as_bool() {
        Some(flag) => *into = flag,
        None => add(name, value, "write true or false", problems),
    }
}

fn seconds(name: &str, value: &Value, setting: (&str, u32, u32, &str), problems: &mut Problems, into: &mut Duration) {
    let (_, least, most, _) = setting;
    match value.as_integer().and_then(|count| u32::try_from(count).ok()).filter(|n| (least..=most).contains(n)) {
        Some(count) => *into = Duration::from_secs(count.into()),
        None => add(name, value, &format!("write a whole number of seconds from {least} to {most}"), problems),
    }
}

/// The settings as a part of a configuration file; with none, what could be said.
pub(super) fn written(settings: Option<&GitHubSettings>) -> String {
    let example = GitHubSettings::new(Source::Folder(PathBuf::from("/etc/memguard/github")));
    let GitHubSettings { connection, cancel, force_cancel, force_cancel_after, check_run } =
        settings.unwrap_or(&example);
    let mut lines = Vec::new();
    if settings.is_none() {
        lines.extend(comment(OFF));
    }
    // What is not said stands there as well, as a comment.
    let off = if settings.is_some() { "" } else { "# " };
    lines.push(format!("{off}[github]"));
    let text = |text: &str| Value::String(text.to_owned()).to_string();
    let file = |path: &PathBuf| text(&path.to_string_lossy());
    let mut say = |name: &str, value: Option<String>, example: &str, why: &str| {
        lines.extend(comment(why));
        lines.push(match value {
            Some(value) => format!("{off}{name} = {value}"),
            None => format!("# {name} = {example}"),
        });
    };
    let (mut folder, mut token, mut app, mut arc) = (None, None, (None, None, None), None);
    match &connection.source {
        Source::Folder(path) => folder = Some(file(path)),
        Source::Token(path) => token = Some(file(path)),
        Source::App { id, installation, key } => {
            app = (Some(text(id)), Some(installation.to_string()), Some(file(key)));
        }
        Source::Arc => arc = Some("true".to_owned()),
    }
    say(CREDENTIALS.0, folder, r#""/etc/memguard/github""#, CREDENTIALS.1);
    say(TOKEN_FILE.0, token, r#""/etc/memguard/token""#, TOKEN_FILE.1);
    say(APP_ID.0, app.0, r#""Iv23liABCDEF""#, APP_ID.1);
    say(INSTALLATION.0, app.1, "12345678", INSTALLATION.1);
    say(KEY.0, app.2, r#""/etc/memguard/app.pem""#, KEY.1);
    say(ARC_SECRET.0, arc, "true", ARC_SECRET.1);
    say(URL.0, Some(text(&connection.url)), "", URL.1);
    say(API_URL.0, connection.api_url.as_deref().map(text), r#""https://github.example/api/v3""#, API_URL.1);
    say(CA_FILE.0, connection.ca_file.as_ref().map(file), r#""/etc/memguard/ca.pem""#, CA_FILE.1);
    say(PROXY.0, connection.proxy.as_deref().map(text), r#""http://proxy.example:3128""#, PROXY.1);
    say(TIMEOUT.0, Some(connection.timeout.as_secs().to_string()), "", TIMEOUT.3);
    say(CANCEL.0, Some(cancel.to_string()), "", CANCEL.1);
    say(FORCE.0, Some(force_cancel.to_string()), "", FORCE.1);
    say(WAIT.0, Some(force_cancel_after.as_secs().to_string()), "", WAIT.3);
    say(CHECK_RUN.0, Some(check_run.to_string()), "", CHECK_RUN.1);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
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
}
