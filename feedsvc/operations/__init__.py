"""Knowledge of a running service: metrics, performance, alerts, health, audit."""
