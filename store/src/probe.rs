//! Whether a store will do: everything a run needs is tried on an object of its own.

use bytes::Bytes;

use crate::{
    folder::{Created, StoreError, random_name},
    store::Store,
};

/// What a store lacks.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A request that runs need was not granted.
    #[error("the store {uri} will not do: it does not let us {need}")]
    Lacks {
        /// The store.
        uri: String,
        /// What was tried.
        need: &'static str,
        /// What it said.
        source: StoreError,
    },
    /// Creating an object a second time went through: two coordinators could both commit.
    #[error(
        "the store {uri} will not do: it lets an object be created twice, and the run log rests on that being refused"
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

impl Store {
    /// Tries what a run needs: to create an object, to be refused creating it again, to read, list and delete it.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        let uri = || self.uri().to_owned();
        let lacks = |need| move |source| ProbeError::Lacks { uri: self.uri().to_owned(), need, source };
        let name = random_name().map_err(lacks("name a probe"))?;
        let name = format!("whimbrel-probe-{name}");
        let body = Bytes::from(name.clone());
        self.folder().create(&name, body.clone()).await.map_err(lacks("create objects"))?;
        let outcome = async {
            match self.folder().create(&name, body.clone()).await.map_err(lacks("create objects twice"))? {
                Created::Taken => {}
                Created::New => return Err(ProbeError::Overwrites { uri: uri() }),
            }
            if self.folder().get(&name).await.map_err(lacks("read objects"))? != Some(body.clone()) {
                return Err(ProbeError::Forgets {
                    uri: uri(),
                    what: "an object just written reads otherwise",
                });
            }
            self.folder().folders().await.map_err(lacks("list objects"))?;
            Ok(())
        }
        .await;
        // The probe is not left behind, whatever it found.
        let deleted = self.folder().delete(std::slice::from_ref(&name)).await;
        outcome?;
        deleted.map_err(lacks("delete objects"))?;
        if self.folder().head(&name).await.map_err(lacks("look objects up"))?.is_some() {
            return Err(ProbeError::Forgets { uri: uri(), what: "an object just deleted is still there" });
        }
        Ok(())
    }
}
