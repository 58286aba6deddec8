//! `token`: the tokens that callers of a host with access control show.

use std::io::IsTerminal as _;

use clap::{Args, Subcommand, ValueEnum};

use amends_api_types::{NewTokenView, RevokeBody, TokenBody, TokenView};
use amends_engine::on_one_line;

use crate::commands::change::{ChangeArgs, print_changed};
use crate::commands::client::{Client, HostArgs, Page, escape};
use crate::commands::exit::{EXIT_DONE, EXIT_USAGE, Failed};
use crate::commands::namespace;
use crate::commands::output::format::Format;
use crate::commands::output::{Look, print_json, print_json_line, print_table_as, say, table};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it; this is the only time that it can be seen
    New(New),
    /// List the tokens that are active, and those that ended within the last 90 days
    List(List),
    /// Revoke a token: within a second, every host of the store refuses it
    Revoke(Revoke),
}

/// The arguments of `new`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  amends token new ada --role operator --payloads --expires 90d\n  \
                  amends token new shop --role service > shop.token\n  AMENDS_TOKEN=$(amends token new \
                  ci --role deployer --expires 1h)\n  amends token new till --role service --namespace \
                  shop,billing\n\nThe host keeps no copy of a token. A lost token is revoked, and another one \
                  made."
)]
pub(crate) struct New {
    /// The name of the token, which is kept with everything that its holder does: 1 to 64 letters, digits, `-`,
    /// `_` and `.`
    pub(crate) name: String,
    /// What the holder may do; several roles add up
    #[arg(long = "role", value_enum, value_name = "ROLE", value_delimiter = ',', required = true)]
    pub(crate) roles: Vec<Role>,
    /// Let the holder see payloads and the state of plugins as well: inputs, outputs, details of errors,
    /// signals
    #[arg(long)]
    pub(crate) payloads: bool,
    /// How long the token is valid, such as 90d [default: until it is revoked]
    #[arg(long, value_name = "DURATION")]
    pub(crate) expires: Option<String>,
    /// How to print it: as json with all that the host knows of it
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// What the holder of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Read everything but payloads and the state of plugins
    Viewer,
    /// Read, start sagas, give orders about them
    Operator,
    /// Read, deploy components
    Deployer,
    /// Start sagas, send signals and events, and nothing else: for applications
    Service,
    /// Everything
    Admin,
}

impl Role {
    const fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Deployer => "deployer",
            Self::Service => "service",
            Self::Admin => "admin",
        }
    }
}

/// The arguments of `list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends token list")]
pub(crate) struct List {
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Which host to talk to.
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// The arguments of `revoke`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  amends token revoke shop --reason \"it was in a log\"")]
pub(crate) struct Revoke {
    /// The name or the id of the token
    #[arg(value_name = "NAME|ID")]
    pub(crate) named: String,
    /// Why, and how to print it.
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

pub(crate) async fn run(verb: Token) -> anyhow::Result<u8> {
    match verb {
        Token::New(args) => make(args).await,
        Token::List(args) => list(args).await,
        Token::Revoke(args) => revoke(args).await,
    }
}

async fn make(args: New) -> anyhow::Result<u8> {
    if args.output == Format::Ids {
        let wrong = "-o ids would print the id, and nobody would ever see the token";
        return Err(Failed::with_help(EXIT_USAGE, wrong, "use table, json or jsonl").into());
    }
    let client = Client::in_default(&args.host)?;
    let New { name, payloads, expires, .. } = args;
    let roles = args.roles.iter().map(|role| role.word().to_owned()).collect();
    let namespaces = namespace::several();
    let body = TokenBody { name, roles, payloads, namespaces, expires_in: expires };
    let made: NewTokenView = client.post("/v1/tokens", &body).await?;
    match args.output {
        Format::Json => print_json(&made)?,
        Format::Jsonl => print_json_line(&made)?,
        Format::Table | Format::Ids => {
            say!("{}", on_one_line(&made.token))?;
            // Elsewhere, what is printed is the token alone.
            if std::io::stdout().is_terminal() {
                say!("Keep it where you keep passwords: it is shown only this once.")?;
            }
        }
    }
    Ok(EXIT_DONE)
}

async fn list(args: List) -> anyhow::Result<u8> {
    let client = Client::in_default(&args.host)?;
    let look = Look::new();
    let all = client.get::<Page<TokenView>>("/v1/tokens").await?.items;
    match args.output {
        Format::Json => print_json(&all)?,
        Format::Jsonl => all.iter().try_for_each(print_json_line)?,
        Format::Ids => all.iter().try_for_each(|token| say!("{}", token.id))?,
        Format::Table if all.is_empty() => say!("the store has no tokens")?,
        Format::Table => {
            let columns =
                ["name", "id", "roles", "payloads", "namespaces", "state", "last used", "expires"];
            let mut rows = table(&columns);
            rows.add_rows(all.into_iter().map(|token| {
                let time = |at| look.time(at);
                let never = || "never".to_owned();
                vec![
                    token.name,
                    token.id,
                    token.roles.join(", "),
                    if token.payloads { "yes" } else { "no" }.to_owned(),
                    token.namespaces.join(", "),
                    token.state,
                    token.last_used_at.map_or_else(never, time),
                    token.expires_at.map_or_else(never, time),
                ]
            }));
            print_table_as(&rows, look)?;
        }
    }
    Ok(EXIT_DONE)
}

async fn revoke(Revoke { named, change }: Revoke) -> anyhow::Result<u8> {
    let ChangeArgs { reason, output, host } = change;
    let client = Client::in_default(&host)?;
    let path = format!("/v1/tokens/{}/revoke", escape(&named));
    let token: TokenView = client.post(&path, &RevokeBody { reason }).await?;
    let TokenView { name, id, .. } = &token;
    print_changed(output, &token, id, || {
        let words = format!("{name} ({id}) is revoked: every host of the store refuses it");
        on_one_line(&words).into_owned()
    })?;
    Ok(EXIT_DONE)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::Role;

    #[test]
    fn a_role_is_sent_by_the_word_that_is_typed() {
        for role in Role::value_variants() {
            let typed = role.to_possible_value().map(|value| value.get_name().to_owned());
            assert_eq!(typed.as_deref(), Some(role.word()));
        }
    }
}
