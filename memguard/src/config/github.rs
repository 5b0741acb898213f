//! `[github]`: which GitHub, with whose credentials, and what is asked of it after a kill.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{Table, Value};

use super::{
    Problems, comment,
    setting::{self, Kind, Other, Setting},
};
use crate::github::{Settings, Source, api_address, looks_secret, proxy_address, web_address};

#[cfg(test)]
mod tests;

/// What the file says about GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitHubSettings {
    pub connection: Settings,
    /// Cancel the run of a job whose runner's container was ended.
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

pub(super) const OFF: &str = "Without credentials nothing is asked of GitHub: the run of a job that was ended fails there some ten minutes later, by \
     itself. [github] with these settings turns it on; the first four ways to name credentials exclude each other.";
const PATH: &str = "a path from the root";
const ADDRESS: &str = "an address";
/// An App takes all three.
const APP: [&str; 3] = ["app_id", "installation_id", "private_key_file"];

/// The ways to name credentials are read together, by [`source`].
pub(super) const SETTINGS: &[Setting<GitHubSettings>] = &[
    Setting {
        name: "credentials",
        kind: Kind::Other(Other {
            takes: || PATH.to_owned(),
            read: |_, _, _, _| {},
            write: |github| match &github.connection.source {
                Source::Folder(path) => Some(file(path)),
                _ => None,
            },
            unsaid: "one way has to be said",
            example: r#""/etc/memguard/github""#,
        }),
        why: "A folder with credentials, as a Secret for ARC is mounted: github_token, or github_app_id, \
              github_app_installation_id and github_app_private_key. Read again when they change.",
    },
    Setting {
        name: "token_file",
        kind: Kind::Other(Other {
            takes: || PATH.to_owned(),
            read: |_, _, _, _| {},
            write: |github| match &github.connection.source {
                Source::Token(path) => Some(file(path)),
                _ => None,
            },
            unsaid: "none",
            example: r#""/etc/memguard/token""#,
        }),
        why: "Or a file with a token.",
    },
    Setting {
        name: "app_id",
        kind: Kind::Other(Other {
            takes: || "a number or a text".to_owned(),
            read: |_, _, _, _| {},
            write: |github| match &github.connection.source {
                Source::App { id, .. } => Some(id.as_str().into()),
                _ => None,
            },
            unsaid: "none",
            example: r#""Iv23liABCDEF""#,
        }),
        why: "Or a GitHub App: its number or client id,",
    },
    Setting {
        name: "installation_id",
        kind: Kind::Other(Other {
            takes: || "a number".to_owned(),
            read: |_, _, _, _| {},
            write: |github| match &github.connection.source {
                Source::App { installation, .. } => i64::try_from(*installation).ok().map(Value::Integer),
                _ => None,
            },
            unsaid: "none",
            example: "12345678",
        }),
        why: "the number of its installation,",
    },
    Setting {
        name: "private_key_file",
        kind: Kind::Other(Other {
            takes: || PATH.to_owned(),
            read: |_, _, _, _| {},
            write: |github| match &github.connection.source {
                Source::App { key, .. } => Some(file(key)),
                _ => None,
            },
            unsaid: "none",
            example: r#""/etc/memguard/app.pem""#,
        }),
        why: "and a file with its private key (PEM).",
    },
    Setting {
        name: "arc_secret",
        kind: Kind::Other(Other {
            takes: || "`true` or `false`".to_owned(),
            read: |_, _, _, _| {},
            write: |github| (github.connection.source == Source::Arc).then_some(Value::Boolean(true)),
            unsaid: "`false`",
            example: "true",
        }),
        why: "Or ARC's own credentials: the Secret that the runner's EphemeralRunner names, read through the Kubernetes API when it \
              is needed. Takes the right to read it (the chart's value github.arcSecrets), and an App that may cancel runs. Not for \
              runners of actions.summerwind.dev, which need one of the other ways.",
    },
    Setting {
        name: "url",
        kind: Kind::Other(Other {
            takes: || ADDRESS.to_owned(),
            read: |github, name, value, problems| {
                if let Some(url) = address(name, value, problems, |text| web_address(text).map(drop)) {
                    github.connection.url = url;
                }
            },
            write: |github| Some(github.connection.url.as_str().into()),
            unsaid: "",
            example: "",
        }),
        why: "The GitHub that the runners belong to, as in a browser: github.com, a host at ghe.com, or an Enterprise Server.",
    },
    Setting {
        name: "api_url",
        kind: Kind::Other(Other {
            takes: || ADDRESS.to_owned(),
            read: |github, name, value, problems| {
                github.connection.api_url = address(name, value, problems, |text| api_address(text).map(drop));
            },
            write: |github| github.connection.api_url.as_deref().map(Value::from),
            unsaid: "what follows from `url`",
            example: r#""https://github.example/api/v3""#,
        }),
        why: "Its REST API, where it is not what follows from url.",
    },
    Setting {
        name: "ca_file",
        kind: Kind::Other(Other {
            takes: || PATH.to_owned(),
            read: |github, name, value, problems| github.connection.ca_file = path(name, value, problems),
            write: |github| github.connection.ca_file.as_deref().map(file),
            unsaid: "none",
            example: r#""/etc/memguard/ca.pem""#,
        }),
        why: "Certificates (PEM) to trust besides those of the system.",
    },
    Setting {
        name: "proxy",
        kind: Kind::Other(Other {
            takes: || ADDRESS.to_owned(),
            read: |github, name, value, problems| {
                github.connection.proxy = address(name, value, problems, |text| proxy_address(text).map(drop));
            },
            write: |github| github.connection.proxy.as_deref().map(Value::from),
            unsaid: "`HTTPS_PROXY`",
            example: r#""http://proxy.example:3128""#,
        }),
        why: "A proxy, as http://proxy.example:3128. Without it HTTPS_PROXY counts; NO_PROXY does in any case. One that wants a \
              password belongs into HTTPS_PROXY.",
    },
    Setting {
        name: "timeout_s",
        kind: Kind::Seconds { range: (1, 300), place: |github| &mut github.connection.timeout },
        why: "For one request with its whole answer.",
    },
    Setting {
        name: "cancel",
        kind: Kind::Switch { place: |github| &mut github.cancel },
        why: "Cancel the run of a job whose runner's container was ended. GitHub can't cancel a single job: all others of the run end with \
              it, which check run and Event say. Where the runner lives the run is not cancelled (cancel_after_oom in a rule).",
    },
    Setting {
        name: "force_cancel",
        kind: Kind::Switch { place: |github| &mut github.force_cancel },
        why: "If the run goes on for all that, force it: conditions as always() are passed over then.",
    },
    Setting {
        name: "force_cancel_after_s",
        kind: Kind::Seconds { range: (10, 3600), place: |github| &mut github.force_cancel_after },
        why: "So long after the cancellation, if it is the same attempt of the run.",
    },
    Setting {
        name: "check_run",
        kind: Kind::Switch { place: |github| &mut github.check_run },
        why: "Tell the developer on the commit what happened: by a check run, or with a token by a commit status.",
    },
];

fn file(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

/// With no credentials, for what is shown where nothing is said.
pub(super) fn unsaid() -> GitHubSettings {
    GitHubSettings::new(Source::Folder(PathBuf::from("/etc/memguard/github")))
}

/// `None` if there are no credentials, which is a mistake once there is a table.
pub(super) fn read(table: &Table, problems: &mut Problems) -> Option<GitHubSettings> {
    let source = source(table, problems);
    let mut settings = GitHubSettings::new(source.clone().unwrap_or(Source::Folder(PathBuf::new())));
    setting::read("github", SETTINGS, table, &mut settings, problems);
    source.map(|_| settings)
}

fn source(table: &Table, problems: &mut Problems) -> Option<Source> {
    let named = |key: &str| table.get(key).map(|value| (format!("github.{key}"), value));
    let of_app = APP.iter().filter(|key| table.contains_key(**key)).count();
    // `false` is as good as not there.
    let mut arc = false;
    if let Some((name, value)) = named("arc_secret") {
        match value.as_bool() {
            Some(on) => arc = on,
            None => problems.add(&name, value, "write true or false"),
        }
        arc |= value.as_bool().is_none();
    }
    let ways = usize::from(table.contains_key("credentials"))
        + usize::from(table.contains_key("token_file"))
        + usize::from(arc);
    if ways + usize::from(of_app > 0) != 1 {
        problems.0.push(format!(
            "github: write credentials, or token_file, or {} together, or arc_secret = true{}",
            APP.join(", "),
            if ways + of_app == 0 {
                "; to ask nothing of GitHub, leave [github] out"
            } else {
                ", and only one of these"
            }
        ));
    }
    let folder = named("credentials").and_then(|(name, value)| path(&name, value, problems)).map(Source::Folder);
    let token = named("token_file").and_then(|(name, value)| path(&name, value, problems)).map(Source::Token);
    if of_app > 0 && of_app < APP.len() && ways == 0 {
        let missing: Vec<_> = APP.into_iter().filter(|key| !table.contains_key(*key)).collect();
        problems.0.push(format!("github: for an App, {} is missing", missing.join(" and ")));
    }
    let id = named(APP[0]).and_then(|(name, value)| app_id(&name, value, problems));
    let installation = named(APP[1]).and_then(|(name, value)| {
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0);
        if number.is_none() {
            problems.add(&name, value, "write the installation's number");
        }
        number
    });
    let key = named(APP[2]).and_then(|(name, value)| path(&name, value, problems));
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
        problems.add(name, value, "write the App's number or its client id");
    }
    id
}

fn path(name: &str, value: &Value, problems: &mut Problems) -> Option<PathBuf> {
    let path = value.as_str().filter(|text| text.starts_with('/') && !looks_secret(text)).map(PathBuf::from);
    if path.is_none() {
        problems.add(name, value, r#"write a path from the root, as "/etc/memguard/github""#);
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
            problems.add(name, value, remedy);
            None
        }
        None => {
            problems.add(name, value, "write an address as a text");
            None
        }
    }
}

/// The settings as a part of a configuration file; with none, what could be said.
pub(super) fn written(settings: Option<&GitHubSettings>) -> String {
    let Some(settings) = settings else {
        let lines = setting::written(SETTINGS, &unsaid());
        let off = lines.iter().map(|line| if line.starts_with('#') { line.clone() } else { format!("# {line}") });
        let head = comment(OFF).into_iter().chain(["# [github]".to_owned()]);
        return head.chain(off).map(|line| line + "\n").collect();
    };
    format!("[github]\n{}\n", setting::written(SETTINGS, settings).join("\n"))
}
