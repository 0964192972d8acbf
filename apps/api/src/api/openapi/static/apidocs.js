// Mounts the interactive reference over the plain one, which stays when there is no script or this fails.
"use strict";

(async () => {
  const reply = await fetch("/openapi.json");
  if (!reply.ok) {
    return;
  }
  const spec = await reply.json();
  // Requests go to the server that this page came from, by whatever name: nothing else may be connected to.
  spec.servers = [{ url: window.location.origin }];
  SwaggerUIBundle({
    spec,
    domNode: document.getElementById("interactive"),
    deepLinking: true,
    displayRequestDuration: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    filter: true,
    tryItOutEnabled: true,
    // What is submitted to a server is published for ever, so only questions can be sent from here.
    supportedSubmitMethods: ["get"],
    queryConfigEnabled: false,
    validatorUrl: null,
    onComplete: () => {
      document.getElementById("reference").hidden = true;
    },
  });
})();
