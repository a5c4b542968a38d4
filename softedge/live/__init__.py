"""``softedge try``: an exported model live on a phone, from this computer or as an installable web app."""
