DROP INDEX wedding.clients_newest, wedding.clients_name, wedding.clients_wedding_date,
    wedding.budgets_updated, wedding.analytics_metric, wedding.vendors_name,
    wedding.tasks_priority, wedding.tasks_updated, wedding.timeline_schedule,
    wedding.notifications_newest, wedding.budgets_client, wedding.tasks_client,
    wedding.timeline_client, wedding.notifications_client;
