import "@fontsource-variable/inter/wght.css";
import "@fontsource-variable/jetbrains-mono/wght.css";
import "./tokens.css";
import "./base.css";
import { MutationCache, QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Problem } from "./api/client";
import { meQuery } from "./api/queries";
import { Speaking } from "./i18n";
import { makeRouter } from "./router";

/** Whoever is signed out is asked to sign in, on whichever page they find out. */
const whenSignedOut = (error: Error) => {
  if (error instanceof Problem && error.isSignedOut) client.setQueryData(["signed-out"], true);
};

const client: QueryClient = new QueryClient({
  queryCache: new QueryCache({ onError: whenSignedOut }),
  mutationCache: new MutationCache({ onError: whenSignedOut }),
  defaultOptions: {
    queries: {
      staleTime: 2000,
      refetchOnWindowFocus: true,
      // What was refused is refused again; what was not reached may be reached.
      retry: (count, error) => count < 3 && error instanceof Problem && (error.status === 0 || error.status === 503),
    },
    mutations: { retry: false },
  },
});

const place = document.getElementById("app");
if (place !== null) {
  void client.prefetchQuery(meQuery);
  createRoot(place).render(
    <StrictMode>
      <QueryClientProvider client={client}>
        <Speaking>
          <RouterProvider router={makeRouter(client)} />
        </Speaking>
      </QueryClientProvider>
    </StrictMode>,
  );
}
