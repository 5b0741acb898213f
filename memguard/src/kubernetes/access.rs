//! The way to the API server, and what memguard may do there.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::authorization::v1::{
    FieldSelectorAttributes, ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{
    Client, Config,
    api::PostParams,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
    core::Request,
};
use serde::{Deserialize, Serialize};
use tower::timeout::TimeoutLayer;

use super::{failure::Call, list::selector, watch::WATCH};
use crate::remote::{Failure, chain, server_text};

/// A watch that says nothing for longer than the server lets it live is dead.
const QUIET: Duration = Duration::from_secs(WATCH.as_secs() + 30);

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "no Kubernetes API in reach of this pod ({why}); give the pod a service account whose token is mounted, or name a \
         kubeconfig"
    )]
    InCluster { why: String },
    #[error("can't use the kubeconfig {}: {why}; `kubectl --kubeconfig` tells whether it is good", path.display())]
    Kubeconfig { path: PathBuf, why: String },
    #[error("can't set up the Kubernetes client: {why}; look at the certificates and the proxy of the configuration")]
    Client { why: String },
    #[error(
        "the API server at {server} has to show a certificate, and there is none to hold it against: the kubeconfig names no \
         certificate authority, and this system has none ({why}); put certificate-authority-data into the kubeconfig's \
         cluster, or install ca-certificates"
    )]
    NoRoots { server: String, why: String },
}

/// A client, by the service account of the pod or by a kubeconfig. Nothing is sent yet.
///
/// `timeout` is for the connection, and for the beginning of each answer.
pub async fn client(kubeconfig: Option<&Path>, timeout: Duration) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        None => Config::incluster().map_err(|error| ConnectError::InCluster { why: server_text(&chain(&error)) })?,
        Some(path) => {
            // No word of what the file holds: parsers like to show the line at which they stumbled.
            let failed = |why: &str| ConnectError::Kubeconfig { path: path.to_owned(), why: why.to_owned() };
            std::fs::metadata(path).map_err(|error| failed(&error.to_string()))?;
            let file = Kubeconfig::read_from(path).map_err(|_| failed("it can't be read as a kubeconfig"))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|_| failed("its current context, cluster or certificates are missing or wrong"))?
        }
    };
    config.connect_timeout = Some(timeout);
    config.write_timeout = Some(timeout);
    config.read_timeout = Some(QUIET.max(timeout));
    config.reset_reader_on_write = true;
    // Whoever asks knows for how long it is worth to try; and a 429 here is to be seen with its Retry-After.
    config.default_retry = false;
    trusting(&mut config, system_roots)?;
    let builder = ClientBuilder::try_from(config);
    let builder = builder.map_err(|error| ConnectError::Client { why: server_text(&chain(&error)) })?;
    Ok(builder.with_layer(&TimeoutLayer::new(timeout)).build())
}

/// Has the client ask the system for certificates only where it needs them: it would refuse to be made without any, and a
/// small image has none.
fn trusting(config: &mut Config, system: impl FnOnce() -> Result<(), String>) -> Result<(), ConnectError> {
    let brings_its_own = config.root_cert.is_some() || config.root_cert_file.is_some();
    let tls = |uri: &http::Uri| uri.scheme_str() == Some("https");
    let encrypted = tls(&config.cluster_url) || config.proxy_url.as_ref().is_some_and(tls);
    if brings_its_own {
        return Ok(());
    }
    if encrypted && !config.accept_invalid_certs {
        let server = server_text(config.cluster_url.host().unwrap_or_default());
        return system().map_err(|why| ConnectError::NoRoots { server, why });
    }
    // Nobody's certificate is looked at. Should one have to be all the same, none is good.
    config.root_cert = Some(Vec::new());
    Ok(())
}

fn system_roots() -> Result<(), String> {
    let system = rustls_native_certs::load_native_certs();
    let none = || system.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
    if system.certs.is_empty() { Err(none()) } else { Ok(()) }
}

/// Something that memguard needs to be allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Right {
    pub verb: &'static str,
    pub resource: &'static str,
    /// Empty for the core group.
    pub group: &'static str,
    /// `None` for all.
    pub namespace: Option<String>,
    /// `None` where the API could not be asked.
    pub granted: Option<bool>,
    /// Why it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    pub needed_for: &'static str,
}

const ARC: &str = "actions.github.com";
const SUMMERWIND: &str = "actions.summerwind.dev";
const NAMES: &str = "names of pods and containers";
const RIGHTS: [(&str, &str, &str, &str); 8] = [
    ("get", "pods", "", "the runner of a job's pod in kubernetes mode"),
    ("list", "pods", "", NAMES),
    ("watch", "pods", "", NAMES),
    ("get", "ephemeralrunners", ARC, "the GitHub run of a runner"),
    ("delete", "ephemeralrunners", ARC, "a new runner right after a kill"),
    ("get", "runners", SUMMERWIND, "the GitHub run of a runner of the older ARC"),
    ("delete", "runners", SUMMERWIND, "a new runner of the older ARC right after a kill"),
    ("create", "events", "events.k8s.io", "telling why a container ended"),
];

/// Asks the API what memguard may do, for the doctor. An API that can't be asked is not asked for the rest.
pub async fn check(client: &Client, node: &str) -> Vec<Right> {
    let mut rights = Vec::with_capacity(RIGHTS.len());
    let mut problem: Option<String> = None;
    for (verb, resource, group, needed_for) in RIGHTS {
        // An authorizer that knows field selectors may allow the pods of this node alone.
        let selector = (resource == "pods" && verb != "get").then(|| selector(node));
        let granted = match &problem {
            Some(_) => None,
            None => match ask(client, verb, resource, group, selector).await {
                Ok(granted) => Some(granted),
                Err(failure) => {
                    problem = Some(failure.to_string());
                    None
                }
            },
        };
        rights.push(Right { verb, resource, group, namespace: None, granted, problem: problem.clone(), needed_for });
    }
    rights
}

async fn ask(
    client: &Client,
    verb: &str,
    resource: &str,
    group: &str,
    selector: Option<String>,
) -> Result<bool, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        allowed: bool,
    }

    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                resource: Some(resource.to_owned()),
                group: Some(group.to_owned()),
                field_selector: selector
                    .map(|raw| FieldSelectorAttributes { raw_selector: Some(raw), requirements: None }),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        },
        ..SelfSubjectAccessReview::default()
    };
    let call = Call {
        verb: "create",
        resource: "selfsubjectaccessreviews.authorization.k8s.io",
        of: format!("about the right to {verb} {resource}"),
    };
    let review = serde_json::to_vec(&review).map_err(|error| call.never(&error.to_string()))?;
    let api = Request::new("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews");
    let text = call.send(client, api.create(&PostParams::default(), review)).await;
    let text = text.map_err(|error| call.failed(&error))?;
    let answer: Answer = serde_json::from_str(&text).map_err(|error| call.later(&server_text(&error.to_string())))?;
    Ok(answer.status.allowed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::kubernetes::fixture::server;

    const PATH: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

    #[tokio::test]
    async fn each_right_is_asked_for() {
        let (client, mut server) = server();
        let serve = async {
            for (verb, resource, group, _) in RIGHTS {
                let asked = server.expect(&Method::POST, PATH).await;
                let attributes = asked.body["spec"]["resourceAttributes"].clone();
                assert_eq!((&attributes["verb"], &attributes["resource"]), (&json!(verb), &json!(resource)));
                assert_eq!(attributes["group"], json!(group));
                let of_this_node = verb != "get" && resource == "pods";
                assert_eq!(attributes["fieldSelector"]["rawSelector"] == json!(selector("node-1")), of_this_node);
                asked.json(201, &json!({"status": {"allowed": verb != "delete", "reason": "RBAC"}}));
            }
        };
        let (rights, ()) = tokio::join!(check(&client, "node-1"), serve);
        assert_eq!(rights.len(), RIGHTS.len());
        assert!(rights.iter().all(|right| right.granted == Some(right.verb != "delete") && right.problem.is_none()));
    }

    #[tokio::test]
    async fn an_api_that_does_not_answer_is_asked_once() {
        let (client, mut server) = server();
        let serve = async { server.expect(&Method::POST, PATH).await.break_off() };
        let (rights, ()) = tokio::join!(check(&client, "node-1"), serve);
        assert!(rights.iter().all(|right| right.granted.is_none() && right.problem.is_some()));
    }

    fn kubeconfig(server: &str) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "secret-token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        })
        .to_string()
    }

    #[tokio::test]
    async fn errors_have_a_remedy_and_no_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let timeout = Duration::from_secs(1);
        let failed = async || client(Some(&path), timeout).await.err().unwrap().to_string();
        assert!(failed().await.contains("No such file"));
        for text in
            ["users: [secret-token", &kubeconfig("https://x").replace("\"c\"", "\"other\"").replacen("other", "c", 1)]
        {
            fs::write(&path, text).unwrap();
            let error = failed().await;
            assert!(error.contains("config") && error.contains("kubectl") && !error.contains("secret"), "{error}");
        }
        // Nobody runs the tests in a pod.
        if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
            let error = client(None, timeout).await.err().unwrap().to_string();
            assert!(error.contains("service account"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, kubeconfig(&format!("http://{}", listener.local_addr().unwrap()))).unwrap();
        let client = client(Some(&path), Duration::from_millis(50)).await.unwrap();
        let rights = check(&client, "node-1").await;
        let Some(why) = &rights[0].problem else { panic!("{rights:?}") };
        assert!(why.contains("timed out") && !why.contains("secret"), "{why}");
    }

    #[test]
    fn the_systems_certificates_are_asked_for_only_where_they_are_needed() {
        let config = |server: &str| Config::new(server.parse().unwrap());
        let none = || Err("none found".to_owned());
        let error = trusting(&mut config("https://k.example:6443"), none).unwrap_err().to_string();
        for part in ["k.example", "none found", "certificate-authority-data", "ca-certificates"] {
            assert!(error.contains(part), "{error}");
        }
        let never = || -> Result<(), String> { panic!("the system is asked") };
        let mut plain = config("http://127.0.0.1:1");
        trusting(&mut plain, never).unwrap();
        assert_eq!(plain.root_cert, Some(Vec::new()));
        let mut own = config("https://k");
        own.root_cert = Some(vec![vec![1]]);
        trusting(&mut own, never).unwrap();
        assert_eq!(own.root_cert, Some(vec![vec![1]]));
        let mut pod = config("https://k");
        pod.root_cert_file = Some("/ca.crt".into());
        trusting(&mut pod, never).unwrap();
        assert_eq!(pod.root_cert, None);
        let mut careless = config("https://k");
        careless.accept_invalid_certs = true;
        trusting(&mut careless, never).unwrap();
        let mut proxied = config("http://k");
        proxied.proxy_url = Some("https://proxy".parse().unwrap());
        assert!(trusting(&mut proxied, none).is_err(), "the proxy shows a certificate");
        let mut system = config("https://k");
        trusting(&mut system, || Ok(())).unwrap();
        assert_eq!(system.root_cert, None, "left to the system");
    }

    /// Runs itself once more, as in an image without certificates: what a process trusts comes from its environment.
    #[test]
    fn a_client_is_made_without_any_certificate_on_the_system() {
        const NAME: &str = "kubernetes::access::tests::a_client_is_made_without_any_certificate_on_the_system";
        const INSIDE: &str = "MEMGUARD_TEST_WITHOUT_CERTIFICATES";
        let dir = tempfile::tempdir().unwrap();
        if std::env::var_os(INSIDE).is_none() {
            let mut inside = std::process::Command::new(std::env::current_exe().unwrap());
            inside.args([NAME, "--exact"]).env(INSIDE, "1").env("SSL_CERT_DIR", dir.path());
            let output = inside.env("SSL_CERT_FILE", dir.path().join("none.pem")).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        assert!(system_roots().is_err());
        let path = dir.path().join("config");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        let with_ca = |server| {
            let mut config: serde_json::Value = serde_json::from_str(&kubeconfig(server)).unwrap();
            let ca = dir.path().join("ca.pem");
            fs::write(&ca, &made).unwrap();
            config["clusters"][0]["cluster"]["certificate-authority"] = json!(ca);
            config.to_string()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = |text: String| {
            fs::write(&path, text).unwrap();
            runtime.block_on(client(Some(&path), Duration::from_secs(1))).map(drop)
        };
        assert!(result(kubeconfig("http://127.0.0.1:1")).is_ok());
        assert!(result(with_ca("https://127.0.0.1:1")).is_ok());
        let error = result(kubeconfig("https://127.0.0.1:1")).unwrap_err();
        assert!(matches!(error, ConnectError::NoRoots { .. }), "{error}");
    }
}
