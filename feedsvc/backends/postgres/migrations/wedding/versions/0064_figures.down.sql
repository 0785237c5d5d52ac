DROP FUNCTION wedding.refresh_figures(), wedding.refresh_vendor_figures(),
    wedding.refresh_month_figures(), wedding.refresh_kept(text);
DROP VIEW wedding.vendor_figures, wedding.month_figures;
DROP MATERIALIZED VIEW wedding.vendor_figures_kept, wedding.month_figures_kept;
DROP TABLE wedding.refreshes;
