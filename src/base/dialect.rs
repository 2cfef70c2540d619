//! Dialects: whose reading of a header decides where brokers differ. One listener has one.

/// See the module's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Our own: what most brokers agree on.
    #[default]
    Steadfast,
    /// ActiveMQ Classic.
    ActiveMq,
    /// ActiveMQ Artemis, and HornetQ before it.
    Artemis,
    /// RabbitMQ.
    RabbitMq,
}

impl Dialect {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Self; 4] = [Self::Steadfast, Self::ActiveMq, Self::Artemis, Self::RabbitMq];

    /// Its name in the configuration and for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steadfast => "steadfast",
            Self::ActiveMq => "activemq",
            Self::Artemis => "artemis",
            Self::RabbitMq => "rabbitmq",
        }
    }

    /// The dialect of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name)
    }
}
