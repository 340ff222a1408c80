//! Profiles of AWS's shared files, `~/.aws/credentials` and `~/.aws/config`, as AWS's own tools read them: static keys,
//! session token, region and endpoint.

use std::{fs, io, path::PathBuf};

use configparser::ini::Ini;

use super::super::environment::Environment;

/// The settings of a profile.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) keys: Option<Keys>,
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
}

/// An access key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
}

/// Whether a profile has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The user named it.
    Named,
    /// It is the default profile: it may be absent.
    ByDefault,
}

/// Settings by which a profile gets its keys in a way that this program does not support.
const OTHER_WAYS: [&str; 6] = [
    "role_arn",
    "sso_session",
    "sso_start_url",
    "credential_process",
    "web_identity_token_file",
    "login_session",
];

impl Profile {
    /// Reads a profile. The error says what is missing, and what to do.
    pub(crate) fn read(name: &str, wanted: Wanted, environment: &Environment) -> Result<Self, String> {
        let home = environment.first(&["HOME", "USERPROFILE"]);
        let file = |variable, default: &str| match (environment.get(variable), home) {
            (Some(path), _) => Some(PathBuf::from(path)),
            (None, home) => home.map(|home| PathBuf::from(home).join(".aws").join(default)),
        };
        let credentials = file("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        let config = file("AWS_CONFIG_FILE", "config");
        let in_config = if name == "default" { name.to_owned() } else { format!("profile {name}") };
        let mut sections = Vec::new();
        for (path, names) in
            [(&credentials, vec![name.to_owned()]), (&config, vec![in_config, name.to_owned()])]
        {
            let Some(path) = path else { continue };
            let Some(ini) = load(path)? else { continue };
            sections.extend(names.iter().find_map(|name| ini.get_map_ref().get(name).cloned()));
        }
        let get = |key: &str| {
            let value = sections.iter().find_map(|section| section.get(key)?.clone());
            value.filter(|value| !value.is_empty())
        };
        let keys = match (get("aws_access_key_id"), get("aws_secret_access_key")) {
            (Some(id), Some(secret)) => Some(Keys { id, secret, token: get("aws_session_token") }),
            _ => None,
        };
        let looked_in: Vec<String> =
            [credentials, config].into_iter().flatten().map(|path| path.display().to_string()).collect();
        if sections.is_empty() && wanted == Wanted::Named {
            return Err(format!("there is no profile {name:?} in {}", looked_in.join(" or ")));
        }
        if keys.is_none() {
            if let Some(way) = OTHER_WAYS.into_iter().find(|&way| get(way).is_some()) {
                return Err(format!(
                    "the profile {name:?} gets its keys by {way}, which Whimbrel does not support; put them into the environment: eval \"$(aws configure export-credentials --profile {name} --format env)\""
                ));
            }
            if wanted == Wanted::Named {
                let files = looked_in.join(" nor in ");
                return Err(format!(
                    "the profile {name:?} has no aws_access_key_id and aws_secret_access_key, neither in {files}"
                ));
            }
        }
        Ok(Self { keys, region: get("region"), endpoint: get("endpoint_url") })
    }
}

/// The sections of a file; `None` if the file does not exist.
fn load(path: &PathBuf) -> Result<Option<Ini>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    // Profile names are case-sensitive, and a `#` within a value is part of it. Indented lines are nested settings: they
    // are dropped, since they must not be taken for the profile's own.
    let mut ini = Ini::new_cs();
    ini.set_comment_symbols(&['#', ';']);
    ini.set_inline_comment_symbols(Some(&[]));
    let own: Vec<&str> = text.lines().filter(|line| !line.starts_with([' ', '\t'])).collect();
    // The parser's message is not shown: it may quote a secret.
    ini.read(own.join("\n"))
        .map_err(|_| format!("{} is not in the format of AWS's shared files", path.display()))?;
    Ok(Some(ini))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(credentials: &str, config: &str) -> (tempfile::TempDir, Environment) {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".aws")).unwrap();
        fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        fs::write(home.path().join(".aws/config"), config).unwrap();
        let environment = [("HOME", home.path().to_str().unwrap())].into_iter().collect();
        (home, environment)
    }

    const CREDENTIALS: &str = "# keys\n[default]\naws_access_key_id = ID\naws_secret_access_key = a/b+c#d;e=\n\n[Lab]\naws_access_key_id=LAB\naws_secret_access_key=lab-secret\naws_session_token=lab-token==\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\ns3 =\n    endpoint_url = http://not-this-one\n\n[profile Lab]\nregion=auto\nendpoint_url = https://account.r2.cloudflarestorage.com\n\n[profile sso]\nsso_session = corp\nregion = us-west-2\n";

    #[test]
    fn a_profile_combines_both_files() {
        let (_home, environment) = environment(CREDENTIALS, CONFIG);
        let default = Profile::read("default", Wanted::ByDefault, &environment).unwrap();
        let keys = default.keys.unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.as_str(), keys.token), ("ID", "a/b+c#d;e=", None));
        assert_eq!((default.region.as_deref(), default.endpoint), (Some("eu-west-1"), None));

        let lab = Profile::read("Lab", Wanted::Named, &environment).unwrap();
        assert_eq!(lab.keys.unwrap().token.as_deref(), Some("lab-token=="));
        assert_eq!(lab.endpoint.as_deref(), Some("https://account.r2.cloudflarestorage.com"));
    }

    #[test]
    fn the_error_names_what_is_missing() {
        let (_home, environment) = environment(CREDENTIALS, CONFIG);
        let error = |name| Profile::read(name, Wanted::Named, &environment).err().unwrap();
        assert!(error("lab").contains("there is no profile \"lab\" in /"), "{}", error("lab"));
        assert!(error("sso").contains("aws configure export-credentials --profile sso"), "{}", error("sso"));

        let nothing = Environment::default();
        assert!(Profile::read("default", Wanted::ByDefault, &nothing).unwrap().keys.is_none());
        assert!(Profile::read("x", Wanted::Named, &nothing).is_err());
    }

    #[test]
    fn the_files_may_be_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, "[p]\naws_access_key_id=I\naws_secret_access_key=S\n").unwrap();
        let environment = [("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap())].into_iter().collect();
        assert!(Profile::read("p", Wanted::Named, &environment).unwrap().keys.is_some());
    }
}
