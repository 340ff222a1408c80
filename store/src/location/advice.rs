//! What to do about a refused request, in the terms of each provider: credentials, permissions, regions.

use super::{credentials::CredentialSource, need::Need, providers::Location, refusal::Refusal};

/// What to do about a refusal, in the terms of the store's provider.
pub(super) fn advice(
    location: &Location,
    credentials: &CredentialSource,
    need: Need,
    refusal: Refusal,
) -> String {
    match refusal {
        Refusal::NoBucket => match location {
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
            Location::Folder(_) | Location::Other(_) => "it does not exist".to_owned(),
        },
        Refusal::Credentials => match credentials {
            CredentialSource::Machine => format!(
                "no credentials were found, in the environment or elsewhere, and this machine's metadata service gives none; {}",
                set_credentials(location)
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
            CredentialSource::Unknown => {
                format!("its credentials are not accepted; {}", set_credentials(location))
            }
        },
        Refusal::Permission => permission(location, need),
        Refusal::Region => {
            "the bucket is in another region; name it with AWS_REGION or ?region=… after the URI".to_owned()
        }
        Refusal::Unreachable => match location {
            Location::S3(_) => {
                "there is no answer; check the endpoint (?endpoint=… or AWS_ENDPOINT_URL) and the network"
                    .to_owned()
            }
            Location::Azure(_) => {
                "there is no answer; check the account's name, AZURE_STORAGE_ENDPOINT and the network"
                    .to_owned()
            }
            _ => "there is no answer; check the network".to_owned(),
        },
        Refusal::Unsupported => {
            "its server does not support it; a run needs puts that refuse to overwrite (If-None-Match: *)"
                .to_owned()
        }
        Refusal::Other => "see its answer".to_owned(),
    }
}

/// How to set credentials.
fn set_credentials(location: &Location) -> &'static str {
    match location {
        Location::S3(_) => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        Location::Azure(_) => {
            "set AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET"
        }
        Location::Gcs(_) => {
            "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`"
        }
        Location::Folder(_) | Location::Other(_) => "Whimbrel knows of no credentials for it",
    }
}

/// The permission that a need requires, as the provider names it.
fn permission(location: &Location, need: Need) -> String {
    match location {
        Location::S3(s3) => {
            let slash = if s3.prefix.as_ref().is_empty() { "" } else { "/" };
            let objects = format!("arn:aws:s3:::{}/{}{slash}*", s3.bucket, s3.prefix);
            let (action, resource) = match need {
                Need::Create | Need::CreateAgain => ("s3:PutObject", objects),
                Need::Read => ("s3:GetObject", objects),
                Need::Delete => ("s3:DeleteObject", objects),
                // Without the permission to list, S3 answers 403 instead of 404 for an object that does not exist.
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
