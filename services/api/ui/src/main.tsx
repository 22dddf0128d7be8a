import "./trustedTypes";
import "./app.css";

import { QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode, useEffect } from "react";
import { createRoot } from "react-dom/client";

import { queryClient } from "./api/client";
import { useSession } from "./api/session";
import { Toasts } from "./controls/Toasts";
import { router } from "./router";
import { SignIn } from "./SignIn";
import { applyTheme } from "./theme";

applyTheme();

function Dashboard() {
  const { key } = useSession();
  useEffect(() => () => queryClient.clear(), [key]); // what one key could see is nothing for the next
  return key === null ? <SignIn /> : <RouterProvider router={router} />;
}

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queryClient}>
      <Dashboard />
      <Toasts />
    </QueryClientProvider>
  </StrictMode>,
);
