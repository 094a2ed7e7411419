"""Private Postgres and RabbitMQ, and the whole stack on one machine."""
