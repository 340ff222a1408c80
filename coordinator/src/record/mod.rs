pub(crate) mod damage_check;
pub(crate) mod output_writer;
pub(crate) mod recorder;
pub(crate) mod replica_status;
pub(crate) mod replication;
