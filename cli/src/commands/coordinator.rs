//! `whimbrel coordinator`.

use std::net::{Ipv4Addr, SocketAddr};

use whimbrel_client::PORT;
use whimbrel_coordinator::{Coordinator, Settings, StartError, Timing, Token};
use whimbrel_store::Store;

use crate::{
    args::coordinator::{CoordinatorArgs, ServerSettings},
    exit::{Code, Failure},
    output::print::Printer,
    signals::Signals,
    token,
};

/// Serves a store, until a signal.
pub(super) async fn serve(args: CoordinatorArgs, config: ServerSettings) -> Result<Code, Failure> {
    let ServerSettings { store, listen, token_file, insecure } = args.settings.over(config);
    let missing = || {
        Failure::bad_input("no store is named")
            .hint("give --store file:///data/runs, or set WHIMBREL_STORE, or store under [coordinator] of whimbrel.toml")
    };
    let listen = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
    let store = Store::open(&store.ok_or_else(missing)?)?;
    store.probe().await?;

    let token = match access(listen, token_file.is_some(), insecure.unwrap_or(false)) {
        Access::Token => Some(load(token_file)?),
        Access::Loopback => None,
        Access::Open => {
            tracing::warn!(%listen, "callers need no token: anyone who reaches this port may run any program on every node");
            None
        }
    };
    let mut signals = Signals::new().map_err(Failure::unexpected)?;
    let store_uri = store.uri().to_owned();
    let settings = Settings { store, listen, token, adopt: true, timing: Timing::default() };
    let mut coordinator = Coordinator::start(settings).await.map_err(|error| match error {
        StartError::Listen { .. } => Failure::bad_input(error),
        error => Failure::unexpected(error),
    })?;
    tracing::info!(address = %coordinator.address(), store = store_uri, "serving; Ctrl-C stops");
    tokio::select! {
        error = coordinator.failed() => return Err(Failure::unexpected(error)),
        () = signals.next() => {}
    }
    tracing::info!("runs are saving a checkpoint; press Ctrl-C again to stop at once");
    tokio::select! {
        () = coordinator.stop() => {}
        () = signals.next() => tracing::warn!("stopped at once; runs go on from their last checkpoints"),
    }
    Ok(Code::Done)
}

/// Who may call the coordinator.
#[derive(Debug, PartialEq, Eq)]
enum Access {
    /// Callers that send the token.
    Token,
    /// Processes on this machine, without a token.
    Loopback,
    /// Everyone: the user gave `--insecure`.
    Open,
}

fn access(listen: SocketAddr, has_token_file: bool, insecure: bool) -> Access {
    match (listen.ip().is_loopback(), insecure) {
        (true, _) if has_token_file => Access::Token,
        (true, _) => Access::Loopback,
        (false, true) => Access::Open,
        (false, false) => Access::Token,
    }
}

/// Loads the token from its file, or makes the file and prints the new token.
fn load(file: Option<std::path::PathBuf>) -> Result<Token, Failure> {
    let no_file = || {
        Failure::bad_input("there is no file for the token, since the user has no home directory")
            .hint("give --token-file PATH, or --insecure")
    };
    let path = file.or_else(token::default_file).ok_or_else(no_file)?;
    let (token, new) = Token::load_or_create(&path).map_err(Failure::bad_input)?;
    if new {
        let mut out = Printer::stdout();
        out.line(format!("token: {}", token.reveal()));
        out.line(format!("  It is in {} and will not be printed again.", path.display()));
        out.line(
            "  Agents and clients take it from WHIMBREL_TOKEN, or from the file given with --token-file.",
        );
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_callers_need_a_token_unless_the_user_disables_it() {
        let (here, anywhere) = ("127.0.0.1:0".parse().unwrap(), "0.0.0.0:0".parse().unwrap());
        assert_eq!(access(here, false, false), Access::Loopback);
        assert_eq!(access(here, true, false), Access::Token);
        assert_eq!(access(anywhere, false, false), Access::Token);
        assert_eq!(access("[2001:db8::1]:1".parse().unwrap(), false, false), Access::Token);
        assert_eq!(access(anywhere, false, true), Access::Open);
    }
}
