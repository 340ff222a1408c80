pub(crate) mod adopt;
pub(crate) mod facts;
pub(crate) mod replicas;
pub(crate) mod take_over;
