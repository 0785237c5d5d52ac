DROP TABLE wedding.measurements, wedding.activity, wedding.guests, wedding.leads, wedding.reviews,
    wedding.availability, wedding.documents, wedding.messages, wedding.payments, wedding.contracts;
