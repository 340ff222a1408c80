//! Whether a store will do: everything a run needs is tried on an object of its own.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    location::{CredentialSource, Location, refusal::Refusal, store::Store},
    object::{
        folder::{Created, Folder, StoreError, random_name},
        retry::RetryPolicy,
    },
};

/// What a run needs of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To create objects.
    Create,
    /// To be refused creating an object that exists.
    CreateAgain,
    /// To read objects.
    Read,
    /// To list objects.
    List,
    /// To delete objects.
    Delete,
    /// To be told that an object is not there.
    LookUp,
}

impl Need {
    fn words(self) -> &'static str {
        match self {
            Self::Create => "create objects",
            Self::CreateAgain => "try to create an object that exists",
            Self::Read => "read objects",
            Self::List => "list objects",
            Self::Delete => "delete objects",
            Self::LookUp => "look objects up",
        }
    }
}

/// What a store lacks.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A request that runs need was not granted.
    #[error("the store {uri} will not do: it does not let us {}: {advice}", need.words())]
    Lacks {
        /// The store.
        uri: String,
        /// What was tried.
        need: Need,
        /// What the refusal means.
        refusal: Refusal,
        /// What to do about it.
        advice: String,
        /// What the store said.
        source: StoreError,
    },
    /// Creating an object a second time went through: two coordinators could both commit.
    #[error(
        "the store {uri} will not do: it answers that it created an object that exists, and replaces it, so two coordinators could both commit; take a store that refuses that (Amazon S3, Ceph, MinIO and R2 do, Garage and s3rver do not)"
    )]
    Overwrites {
        /// The store.
        uri: String,
    },
    /// What was written is not what is read.
    #[error("the store {uri} will not do: {what}")]
    Forgets {
        /// The store.
        uri: String,
        /// What is not as it should be.
        what: &'static str,
    },
}

/// A user waits for it: what does not answer soon will not answer.
fn at_most(retry_policy: &RetryPolicy) -> RetryPolicy {
    RetryPolicy {
        attempts: retry_policy.attempts.min(3),
        answer: retry_policy.answer.min(Duration::from_secs(15)),
        ..retry_policy.clone()
    }
}

impl Store {
    /// Retry what a run needs: to create an object, to be refused creating it again, to read, list and delete it. The
    /// failure names the permission that is missing.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        let folder = self.folder().clone().with_retry_policy(at_most(self.folder().retry_policy()));
        let name = random_name().map_err(|source| self.lacks(Need::Create, source))?;
        let name = format!("whimbrel-probe-{name}");
        let body = Bytes::from(name.clone());
        folder.create(&name, body.clone()).await.map_err(|source| self.lacks(Need::Create, source))?;
        let outcome = self.try_out(&folder, &name, &body).await;
        // The probe is not left behind, whatever it found.
        let deleted = folder.delete(std::slice::from_ref(&name)).await;
        outcome?;
        deleted.map_err(|source| self.lacks(Need::Delete, source))?;
        match folder.head(&name).await.map_err(|source| self.lacks(Need::LookUp, source))? {
            None => Ok(()),
            Some(_) => Err(self.forgets("an object just deleted is still there")),
        }
    }

    async fn try_out(&self, folder: &Folder, name: &str, body: &Bytes) -> Result<(), ProbeError> {
        // Other bytes, so that a store that replaces the first is told from one that compares.
        let other = Bytes::from(format!("{name} again"));
        let again = folder.create(name, other).await;
        if again.map_err(|source| self.lacks(Need::CreateAgain, source))? == Created::New {
            return Err(ProbeError::Overwrites { uri: self.uri().to_owned() });
        }
        let read = folder.get(name, 1 << 10).await.map_err(|source| self.lacks(Need::Read, source))?;
        if read.as_ref() != Some(body) {
            return Err(self.forgets("an object just written reads otherwise"));
        }
        folder.folders().await.map_err(|source| self.lacks(Need::List, source))?;
        Ok(())
    }

    fn forgets(&self, what: &'static str) -> ProbeError {
        ProbeError::Forgets { uri: self.uri().to_owned(), what }
    }

    fn lacks(&self, need: Need, source: StoreError) -> ProbeError {
        let refusal = Refusal::of(&source);
        let advice = advice(self.place(), self.credentials(), need, refusal);
        ProbeError::Lacks { uri: self.uri().to_owned(), need, refusal, advice, source }
    }
}

/// What to do about a refusal, in the words of the cloud.
fn advice(place: &Location, credentials: &CredentialSource, need: Need, refusal: Refusal) -> String {
    match refusal {
        Refusal::NoBucket => match place {
            Location::Azure(azure) => {
                format!(
                    "there is no container {:?} in the account; create it, or name another",
                    azure.container
                )
            }
            Location::S3(s3) => {
                format!("there is no bucket {:?} there; create it, or name another", s3.bucket)
            }
            Location::Gcs(gcs) => format!("there is no bucket {:?}; create it, or name another", gcs.bucket),
            Location::Folder(_) | Location::Other(_) => "there is nothing of the name".to_owned(),
        },
        Refusal::Credentials => match credentials {
            CredentialSource::Machine => format!(
                "no credentials were found, in the environment or elsewhere, and this machine's metadata service gives none; {}",
                set(place)
            ),
            CredentialSource::Environment(variable) => {
                format!(
                    "the credentials of {variable} are not accepted; they may be another account's, or have expired"
                )
            }
            CredentialSource::Profile(name) => {
                format!(
                    "the credentials of the profile {name:?} are not accepted; they may be another account's, or have expired"
                )
            }
            CredentialSource::Unknown => format!("its credentials are not accepted; {}", set(place)),
        },
        Refusal::Permission => permission(place, need),
        Refusal::Region => {
            "the bucket is in another region; name it with AWS_REGION or ?region=… behind the URI".to_owned()
        }
        Refusal::Unreachable => match place {
            Location::S3(_) => {
                "nobody answers there; look at the endpoint (?endpoint=… or AWS_ENDPOINT_URL) and the network"
                    .to_owned()
            }
            Location::Azure(_) => {
                "nobody answers there; look at the account's name, at AZURE_STORAGE_ENDPOINT and the network"
                    .to_owned()
            }
            _ => "nobody answers there; look at the network".to_owned(),
        },
        Refusal::Unsupported => {
            "its server does not know how; a run needs puts that refuse to overwrite (If-None-Match: *)"
                .to_owned()
        }
        Refusal::Other => "see what it said".to_owned(),
    }
}

/// How credentials are given.
fn set(place: &Location) -> &'static str {
    match place {
        Location::S3(_) => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        Location::Azure(_) => {
            "set AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET"
        }
        Location::Gcs(_) => {
            "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`"
        }
        Location::Folder(_) | Location::Other(_) => "it takes none that Whimbrel knows of",
    }
}

/// The permission that a need takes, as the cloud names it.
fn permission(place: &Location, need: Need) -> String {
    match place {
        Location::S3(s3) => {
            let slash = if s3.prefix.as_ref().is_empty() { "" } else { "/" };
            let objects = format!("arn:aws:s3:::{}/{}{slash}*", s3.bucket, s3.prefix);
            let (action, resource) = match need {
                Need::Create | Need::CreateAgain => ("s3:PutObject", objects),
                Need::Read => ("s3:GetObject", objects),
                Need::Delete => ("s3:DeleteObject", objects),
                // Who may not list is told 403 and not 404 of what is not there.
                Need::List | Need::LookUp => ("s3:ListBucket", format!("arn:aws:s3:::{}", s3.bucket)),
            };
            format!("the permission {action} is missing; grant it for {resource}")
        }
        Location::Azure(azure) => {
            let (action, letter) = match need {
                Need::Create | Need::CreateAgain => ("blobs/write", "cw"),
                Need::Read | Need::LookUp => ("blobs/read", "r"),
                Need::List => ("blobs/read", "l"),
                Need::Delete => ("blobs/delete", "d"),
            };
            format!(
                "the permission is missing; give the identity the role \"Storage Blob Data Contributor\" for the container {:?} (Microsoft.Storage/storageAccounts/blobServices/containers/{action}), or the SAS the letters {letter}",
                azure.container
            )
        }
        Location::Gcs(gcs) => {
            let permission = match need {
                Need::Create | Need::CreateAgain => "storage.objects.create",
                Need::Read | Need::LookUp => "storage.objects.get",
                Need::List => "storage.objects.list",
                Need::Delete => "storage.objects.delete",
            };
            format!(
                "the permission {permission} is missing; give the account the role roles/storage.objectUser for gs://{}",
                gcs.bucket
            )
        }
        Location::Folder(path) => format!("this user may not do that in {}", path.display()),
        Location::Other(_) => "the permission is missing".to_owned(),
    }
}
