DROP TABLE wedding.seeding, wedding.notifications, wedding.timeline, wedding.tasks,
    wedding.vendors, wedding.analytics, wedding.budgets, wedding.clients, wedding.tenants;
DROP TYPE wedding.client_status;
